"""Replays against a naive model of the cache, and what each option does to a trace."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pagedkv.replay import ReplayOptions, TraceRequest, cache_groups, read_trace, replay
from pagedkv.replay.run import MAX_SAMPLES

SMALL = Path(__file__).parents[3] / "examples" / "traces" / "chat.jsonl"


def request(ids, length=None, output=1, timestamp=0, block=8):
    length = length or block * len(ids)
    return TraceRequest(timestamp, length, output, np.array(ids, np.int64), block)


def run(trace, num_pages, groups=("full",), **options):
    options = ReplayOptions(**{"page_size": 4, "max_running": 1, "token_budget": 4096} | options)
    return replay(trace, num_pages, groups=cache_groups(groups, options.page_size), options=options)


@settings(max_examples=60)
@given(
    prompts=st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(1, 8)),
        min_size=1,
        max_size=14,
    )
)
def test_hits_of_one_request_at_a_time_are_those_of_a_list_in_a_large_pool(prompts):
    seen, hits, tokens = set(), 0, 0
    trace = []
    for ids, last in prompts:
        trace.append(request(ids, 8 * (len(ids) - 1) + last))
        words = trace[-1].tokens().tolist()
        tokens += len(words)
        pages = [tuple(words[:end]) for end in range(4, len(words) + 1, 4)]
        found = 0
        for page in pages:
            if page not in seen or len(page) == len(words):
                break
            found = len(page)
        hits += found
        seen.update(pages)
    result = run(trace, 1000)
    assert (result.num_hit_tokens, result.num_prompt_tokens) == (hits, tokens)
    assert result.num_evictions == result.num_preemptions == result.num_refused == 0


def test_the_least_recently_used_go():
    trace = [request([1]), request([2]), request([1]), request([3]), request([2]), request([1])]
    # A prompt of 8 tokens takes 2 pages. Its first page can be hit, the last token is computed.
    assert run(trace, 1 + 6).num_hit_tokens == 3 * 4
    assert run(trace, 1 + 4).num_hit_tokens < 3 * 4
    assert run(trace, 1 + 4).num_evictions > 0


def test_requests_that_can_never_fit_are_counted():
    trace = [request([1, 2, 3]), request([4])]
    result = run(trace, 1 + 3)
    assert (result.num_requests, result.num_refused) == (1, 1)
    assert run(trace, 1000, max_model_len=20).num_refused == 1


def test_answers_are_as_long_as_traced_or_cut():
    trace = [request([1], output=20), request([2], output=0)]
    assert run(trace, 100).num_output_tokens == 21
    assert run(trace, 100, max_output_tokens=5).num_output_tokens == 6


def test_answers_hit_nothing():
    trace = [request([1], output=40), request([1], output=40)]
    assert run(trace, 100).num_hit_tokens == 4


def test_windows_need_fewer_pages_and_hit_as_much():
    trace = list(read_trace(SMALL))
    full = run(trace, 4000, page_size=16)
    window = run(trace, 4000, groups=["window:1024"], page_size=16)
    hybrid = run(trace, 8000, groups=["full", "window:1024"], page_size=16)
    assert window.peak_held_pages < full.peak_held_pages
    assert hybrid.hit_rate == pytest.approx(full.hit_rate, abs=0.2)
    assert window.num_hit_tokens > 0


def test_shards_serve_all():
    trace = list(read_trace(SMALL))
    one = run(trace, 8000, page_size=16, max_running=16)
    four = run(trace, 8000, page_size=16, max_running=16, data_parallel_size=4)
    assert four.num_requests == one.num_requests
    assert 0 < four.num_hit_tokens <= one.num_hit_tokens * 1.1


def test_small_pools_preempt_and_every_answer_is_said():
    trace = [request([i], output=60) for i in range(6)]
    large = run(trace, 200, max_running=6)
    small = run(trace, 1 + 20, max_running=6)
    assert large.num_preemptions == 0 < small.num_preemptions
    assert large.num_output_tokens == small.num_output_tokens == 6 * 60
    assert small.num_prompt_tokens == large.num_prompt_tokens, "once a request"


def test_kept_prompts_survive_a_storm():
    storm = [request([i, 1000 + i], timestamp=i) for i in range(10, 40)]
    trace = [request([1]), *storm, request([1], timestamp=50)]
    assert run(trace, 1 + 8).num_hit_tokens == 0
    kept = {"prompt_tokens": 4, "prompt_priority": 90}
    # What each of the storm keeps is colder than the rest of a prompt, and no colder than the first.
    assert run(trace, 1 + 40, **kept).num_hit_tokens == 4
    assert run(trace, 1 + 40).num_hit_tokens == 0
    assert run(trace, 1 + 40, **kept, prompt_ttl=10).num_hit_tokens == 0


def test_samples_are_few_and_end_with_the_result():
    result = run([request([i]) for i in range(3000)], 100)
    assert len(result.samples) <= MAX_SAMPLES
    last = result.samples[-1]
    assert last.num_prompt_tokens == result.num_prompt_tokens == 24_000
    assert last.num_evictions == result.num_evictions
    distances = np.diff([sample.num_prompt_tokens for sample in result.samples])
    assert (distances[:-1] > 0).all()


def test_steps_are_told():
    steps = []
    run([request([1], output=3)], 100)
    options = ReplayOptions(page_size=4)
    replay(
        [request([1], output=3)],
        100,
        groups=cache_groups(["full"], 4),
        options=options,
        on_step=lambda result: steps.append(result.num_steps),
    )
    assert steps == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"page_size": 0}, "page_size must be at least 1, got 0"),
        ({"max_running": 0}, "max_running must be at least 1, got 0"),
        ({"token_budget": 3}, "token_budget must be at least max_running 256, got 3"),
        ({"max_output_tokens": 0}, "max_output_tokens must be at least 1, got 0"),
        ({"prompt_tokens": -1}, "prompt_tokens must be at least 0, got -1"),
        ({"data_parallel_size": 0}, "data_parallel_size must be at least 1, got 0"),
        ({"prompt_tokens": 1, "prompt_priority": 101}, "priority must be in"),
        ({"output_priority": -1}, "priority must be in"),
    ],
)
def test_options_out_of_range_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        ReplayOptions(**options)


@pytest.mark.parametrize(
    "name", ["", "half", "window", "window:0", "window:-1", "chunk:x", "full:3"]
)
def test_other_groups_are_refused(name):
    with pytest.raises(ValueError, match=r"^\[cache_groups\] a group is 'full', 'window:N'"):
        cache_groups([name], 16)
    with pytest.raises(ValueError, match="at least one group"):
        cache_groups([], 16)
