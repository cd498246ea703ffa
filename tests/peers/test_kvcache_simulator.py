"""Hit rates of a replay against kvcache-simulator's, which keeps block ids in a trie.

Its parts read a Python list and need no compiler. Traces are made so that both count alike: the last
block of each prompt is partial and its own, since it counts those as hits and a real cache shares
full pages alone.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvcache_sim.plan import build_execution_plan
from kvcache_sim.policies import simulate_ceiling, simulate_policy
from kvcache_sim.trace import parse_trace_lines
from pagedkv.replay import ReplayOptions, cache_groups, read_trace, replay

BLOCK = 8
OPTIONS = ReplayOptions(page_size=BLOCK, max_running=1, token_budget=4096, max_output_tokens=1)


def lines_of(paths):
    """Prompts that go down a tree: block ids name the whole way to them."""
    lines, ids = [], {}
    for i, path in enumerate(paths):
        ways = [tuple(path[: depth + 1]) for depth in range(len(path))] + [("own", i)]
        numbers = [ids.setdefault(way, len(ids)) for way in ways]
        length = BLOCK * len(path) + 1
        lines.append(json.dumps({"input_length": length, "hash_ids": numbers}))
    return lines


def hits_of_ours(tmp_path, lines, num_pages):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    trace = read_trace(path, block_size=BLOCK)
    return replay(trace, num_pages, groups=cache_groups(["full"], BLOCK), options=OPTIONS)


PATHS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=30)


@settings(max_examples=50)
@given(paths=PATHS)
def test_hits_of_a_pool_without_end_are_equal(tmp_path_factory, paths):
    lines = lines_of(paths)
    plan = build_execution_plan(parse_trace_lines(lines, block_size=BLOCK), warmup_fraction=0.0)
    theirs = simulate_ceiling(plan)
    ours = hits_of_ours(tmp_path_factory.mktemp("trace"), lines, 10_000)
    assert (ours.num_hit_tokens, ours.num_prompt_tokens) == (theirs.hitTokens, theirs.totalTokens)


@pytest.mark.parametrize("capacity", [24, 48, 96])
def test_hit_rates_under_pressure_are_close(tmp_path, capacity):
    paths = [[i * i % 7, i % 5, i % 3, i * 3 % 4] for i in range(1200)]
    lines = lines_of(paths)
    plan = build_execution_plan(parse_trace_lines(lines, block_size=BLOCK))
    theirs = simulate_policy(plan, "lru", capacity)
    assert theirs.measurementMode == "fixed_window"
    whole = hits_of_ours(tmp_path, lines, capacity + 1)
    half = hits_of_ours(tmp_path, lines[: len(lines) // 2], capacity + 1)
    tokens = whole.num_prompt_tokens - half.num_prompt_tokens
    assert tokens == theirs.totalTokens
    ours = (whole.num_hit_tokens - half.num_hit_tokens) / tokens
    assert ours == pytest.approx(theirs.hitRate, abs=0.03)
