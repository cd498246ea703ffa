"""Replays a trace of requests, and holds every page that is handed out to exact LRU.

    python tests/peers/lru_on_trace.py TRACE.jsonl --pages 200000 --limit 1000

TRACE.jsonl is in the format of the Mooncake project's traces (Qin et al., FAST 2025): one JSON object a
line with `input_length` and `output_length` in tokens, and `hash_ids`, one for each 512 tokens of the
input; where ids are equal, so is all up to there. Times of arrival are not looked at: the queue is never
empty. `pagedkv.serving.scheduler.Scheduler` serves it, first come, first served: 64 requests run, 8192
tokens a step, answers of at most 64 tokens. No model runs.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lru_pages import CheckedManager, Mismatch
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request
from pagedkv.serving.scheduler import Scheduler

PAGE_SIZE = 16
TOKENS_PER_ID = 512
VOCAB_SIZE = 128_000
MAX_OUTPUT = 64
MAX_RUNNING = 64
TOKEN_BUDGET = 8192
NUM_QUEUED = 4  # requests whose tokens are made ahead of their turn


@dataclass(frozen=True)
class TraceRequest:
    number: int
    input_length: int
    output_length: int
    hash_ids: list[int]


def load_trace(path: Path, limit: int | None = None) -> list[TraceRequest]:
    """Reads the first `limit` requests.

    Raises:
      ValueError: For a line that is no request, naming it; if there is none.
    """
    trace = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(itertools.islice(lines, limit)):
            try:
                fields = json.loads(line)
                lengths = int(fields["input_length"]), int(fields["output_length"])
                request = TraceRequest(number, *lengths, [int(i) for i in fields["hash_ids"]])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number + 1}: not a request: {error!r}") from error
            if not 0 < request.input_length <= TOKENS_PER_ID * len(request.hash_ids):
                raise ValueError(
                    f"{path}:{number + 1}: input_length must be from 1 to what hash_ids say, "
                    f"{TOKENS_PER_ID * len(request.hash_ids)}, got {request.input_length}"
                )
            trace.append(request)
    if not trace:
        raise ValueError(f"{path}: has no requests")
    return trace


def mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea and Flood, 2014) of each uint64."""
    numbers = numbers * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def make_request(request: TraceRequest) -> Request:
    """Tokens are a function of the id and the place behind it, so what is equal stays equal."""
    firsts = np.array(request.hash_ids, np.uint64)[:, None] * np.uint64(TOKENS_PER_ID)
    places = (firsts + np.arange(1, TOKENS_PER_ID + 1, dtype=np.uint64)).ravel()
    tokens = mixed(places[: request.input_length]) % np.uint64(VOCAB_SIZE)
    return Request(str(request.number), tokens.astype(np.int32))


def make_manager(num_pages: int, trace: Iterable[TraceRequest], **options) -> CacheManager:
    """`options` are those of the manager."""
    spec = FullAttentionSpec(PAGE_SIZE, num_kv_heads=8, head_size=128, dtype="bfloat16")
    max_model_len = max(request.input_length for request in trace) + MAX_OUTPUT
    return CacheManager(num_pages, [CacheGroupSpec(spec)], max_model_len, **options)


@dataclass
class Report:
    num_requests: int
    num_prompt_tokens: int
    num_steps: int
    num_preemptions: int
    num_pages_taken: int
    num_pages_reused: int
    num_evictions: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.num_requests:,} requests of {self.num_prompt_tokens:,} prompt tokens in "
            f"{self.num_steps:,} steps, {self.num_preemptions:,} preemptions\n"
            f"{self.num_pages_taken:,} pages handed out, each the one that LRU says; "
            f"{self.num_pages_reused:,} reused\n"
            f"{self.num_evictions:,} evictions, as many as in LRU; {self.seconds:.1f} s"
        )


def replay(
    manager: CacheManager,
    trace: list[TraceRequest],
    make: Callable[[TraceRequest], Request] = make_request,
    *,
    check_each_step: bool = False,
) -> Report:
    """Serves the whole trace.

    Args:
      check_each_step: Compare the order of all free pages, and check invariants, in each step and not
        only at the end.

    Raises:
      Mismatch: At the first page that is not the one that LRU says.
      ValueError: If a request can never fit in the pool.
    """
    checked = CheckedManager(manager)
    scheduler = Scheduler(
        checked, max_running=MAX_RUNNING, token_budget=TOKEN_BUDGET, watermark=0.0
    )
    rng = np.random.default_rng(0)
    begin, num_steps = time.perf_counter(), 0
    waiting: Iterator[TraceRequest] = iter(trace)
    while True:
        for request in itertools.islice(waiting, max(0, NUM_QUEUED - scheduler.num_waiting)):
            scheduler.submit(make(request), min(max(request.output_length, 1), MAX_OUTPUT))
        if not scheduler.has_work:
            break
        step = scheduler.schedule()
        scheduler.complete(step, rng.integers(VOCAB_SIZE, size=len(step.handles)))
        num_steps += 1
        if check_each_step:
            checked.check_order()
            manager.check_invariants()
    checked.check_order()
    manager.check_invariants()
    lru = checked.lru
    return Report(
        num_requests=len(trace),
        num_prompt_tokens=sum(request.input_length for request in trace),
        num_steps=num_steps,
        num_preemptions=scheduler.num_preemptions,
        num_pages_taken=lru.num_taken,
        num_pages_reused=lru.num_reused,
        num_evictions=lru.num_evicted,
        seconds=time.perf_counter() - begin,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--pages", type=int, default=200_000, help="of 16 tokens")
    parser.add_argument("--limit", type=int, help="this many requests")
    options = parser.parse_args()
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit must be at least 1, got {options.limit}")
    try:
        trace = load_trace(options.trace, options.limit)
        print(replay(make_manager(options.pages, trace), trace))
    except Mismatch as mismatch:
        sys.exit(f"not LRU: {mismatch}")
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
