"""`pagedkv.replay` next to kvcache-simulator on one trace: hit rates, and how long each takes.

    python benchmarks/python/bench_replay.py TRACE [--blocks 2000,20000] [--limit N]

kvcache-simulator (PyPI) keeps the ids of a trace in a trie, evicts the least recently used leaf, and
measures the last half of the requests: no tokens, no digests, one request at a time, no answers. So
ours runs one request at a time too, with pages as large as the trace's blocks, and answers of one
token. What is left of differences: it counts a block that is full only in part, and the whole of a
prompt that it has seen; a real cache shares full pages, and computes the last token of a prompt.
"""

import argparse
import itertools
import time
from pathlib import Path

from kvcache_sim.cpp_backend import run_cpp_sweep
from kvcache_sim.plan import build_execution_plan
from kvcache_sim.policies import simulate_policy
from kvcache_sim.trace import parse_trace_file
from pagedkv.replay import ReplayOptions, cache_groups, read_trace, replay
from rich.console import Console
from rich.table import Table

BLOCK = 512


def ours(path: Path, num_blocks: int, limit: int) -> tuple[float, float]:
    """Hit rate of the last half, and seconds for the whole."""
    options = ReplayOptions(
        page_size=BLOCK, max_running=1, token_budget=1 << 20, max_output_tokens=1
    )

    def run(num_requests: int):
        trace = itertools.islice(read_trace(path), num_requests)
        groups = cache_groups(["full"], BLOCK)
        return replay(trace, num_blocks + 1, groups=groups, options=options)

    whole, half = run(limit), run(limit // 2)
    tokens = whole.num_prompt_tokens - half.num_prompt_tokens
    return (whole.num_hit_tokens - half.num_hit_tokens) / tokens, whole.seconds


def theirs(path: Path, num_blocks: int, limit: int, backend: str) -> tuple[float, float]:
    start = time.perf_counter()
    trace = parse_trace_file(path, block_size=BLOCK, max_records=limit)
    if backend == "cpp":
        found = run_cpp_sweep(
            trace, capacities=[num_blocks], policies=["lru"], warmup_requests=limit // 2
        )
        result = found.results["lru", num_blocks]
    else:
        result = simulate_policy(build_execution_plan(trace), "lru", num_blocks)
    return result.hitRate, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--blocks", default="2000,20000")
    parser.add_argument("--limit", type=int, default=1 << 30)
    args = parser.parse_args()
    limit = min(args.limit, sum(1 for _ in read_trace(args.trace)))
    table = Table(title=f"{args.trace.name}, {limit:,} requests, blocks of {BLOCK} tokens")
    for head in ("blocks", "replay", "hit rate", "seconds"):
        table.add_column(head, justify="right")
    for num_blocks in map(int, args.blocks.split(",")):
        rows = {
            "pagedkv": ours(args.trace, num_blocks, limit),
            "kvcache-simulator, C++": theirs(args.trace, num_blocks, limit, "cpp"),
            "kvcache-simulator, Python": theirs(args.trace, num_blocks, limit, "python"),
        }
        for name, (hit_rate, seconds) in rows.items():
            table.add_row(f"{num_blocks:,}", name, f"{hit_rate:.4%}", f"{seconds:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
