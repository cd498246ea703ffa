"""A decode step of many requests: EasyDeL's manager, ours in its place, and our step calls.

    python benchmarks/python/bench_scheduler_calls.py [EASYDEL]

EASYDEL is the wheel of easydel 0.3.0, or a folder with its package; without one, the wheel that
`make peers` fetches. Both managers serve EasyDeL's own request objects. The two take turns, each in a
process of its own, so that neither pays for the other's garbage; times are CPU time of the thread.

A decode step is one `allocate_slots` and one `get_page_ids` for each running request; with the step
calls, `allocate_step`, `slot_mapping` and `commit_step` for all of them. One request in 16 crosses into
a new page, and has the page before hashed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "peers"))

PAGE_SIZE = 16
PERIOD = 16  # steps in which each request crosses one page
MANAGERS = ("easydel", "compat", "pagedkv", "steps")
LABELS = {
    "easydel": "EasyDeL 0.3.0",
    "compat": "pagedkv.compat.easydel",
    "pagedkv": "pagedkv, the same calls",
    "steps": "pagedkv, step calls",
}


def make_manager(name: str, easydel: Any, num_pages: int, max_model_len: int) -> Any:
    import jax.numpy as jnp
    import pagedkv
    import pagedkv.compat.easydel

    spec = {"page_size": PAGE_SIZE, "num_kv_heads": 8, "head_size": 128, "dtype": jnp.bfloat16}
    if name == "easydel":
        layers = easydel.interface.FullAttentionSpec(**spec, use_mla=False)
        groups: list[Any] = [easydel.interface.CacheGroupSpec(kv_cache_spec=layers)]
        return easydel.manager.CacheManager(num_pages, groups, max_model_len)
    groups = [pagedkv.CacheGroupSpec(pagedkv.FullAttentionSpec(**spec))]
    package = pagedkv.compat.easydel if name == "compat" else pagedkv
    return package.CacheManager(num_pages, groups, max_model_len)


def measure_steps(num_requests: int, num_tokens: int, num_steps: int) -> list[float]:
    """Returns microseconds a step with the step calls, one figure for each period."""
    import numpy as np
    from pagedkv import Request

    max_model_len = num_tokens + num_steps + 3 * PERIOD
    num_pages = num_requests * (max_model_len // PAGE_SIZE + 2)
    manager = make_manager("pagedkv", None, num_pages, max_model_len)
    rng = np.random.default_rng(0)
    counts = np.array(
        [num_tokens - PAGE_SIZE // 2 + i % PAGE_SIZE for i in range(num_requests)], np.int32
    )
    requests = [Request(f"{i}", rng.integers(128_000, size=n)) for i, n in enumerate(counts)]
    handles = manager.add_requests(requests)
    manager.allocate_step(handles, counts)
    manager.commit_step(handles, counts)
    one = np.ones(num_requests, np.int32)
    steps = []
    for _ in range(PERIOD + num_steps):
        manager.append_tokens(handles, rng.integers(128_000, size=num_requests).astype(np.int32))
        begin = time.thread_time_ns()
        grant = manager.allocate_step(handles, one)
        slots = manager.slot_mapping(handles, one)
        manager.commit_step(handles, one)
        steps.append(time.thread_time_ns() - begin)
        assert grant.num_requests == len(slots) == num_requests
    return per_period(steps[PERIOD:])


def per_period(nanoseconds: list[int]) -> list[float]:
    starts = range(0, len(nanoseconds), PERIOD)
    return [sum(nanoseconds[i : i + PERIOD]) / PERIOD / 1e3 for i in starts]


def measure(
    name: str, root: Path, num_requests: int, num_tokens: int, num_steps: int
) -> list[float]:
    """Returns microseconds a step, one figure for each period."""
    import numpy as np
    from easydel_core import load

    easydel = load(root)
    max_model_len = num_tokens + num_steps + 3 * PERIOD
    manager = make_manager(
        name, easydel, num_requests * (max_model_len // PAGE_SIZE + 2), max_model_len
    )
    params = type("SamplingParams", (), {"prompt_logprobs": None, "max_tokens": 1 << 20})
    params.extra_args = params.guided_decoding = None
    rng = np.random.default_rng(0)
    requests = []
    for i in range(num_requests):
        prompt = rng.integers(128_000, size=num_tokens - PAGE_SIZE // 2 + i % PAGE_SIZE).tolist()
        request = easydel.request.EngineRequest(f"request-{i}", prompt, params, None)
        pages, num_cached = manager.get_computed_pages(request)
        assert manager.allocate_slots(request, len(prompt) - num_cached, num_cached, pages)
        request.num_computed_tokens = len(prompt)
        request.append_output_token_ids(7)
        requests.append(request)
    steps = []
    for step in range(PERIOD + num_steps):
        begin = time.thread_time_ns()
        ids = [manager.allocate_slots(request, 1).get_page_ids() for request in requests]
        steps.append(time.thread_time_ns() - begin)
        assert len(ids) == num_requests
        for i, request in enumerate(requests):
            request.num_computed_tokens += 1
            request.append_output_token_ids((step * 7919 + i) % 128_000)
    return per_period(steps[PERIOD:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("easydel", type=Path, nargs="?")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=MANAGERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.easydel is None:
        from easydel_core import find_wheel

        args.easydel = find_wheel()
    if args.only:
        sizes = (args.requests, args.tokens, args.steps)
        is_steps = args.only == "steps"
        print(
            json.dumps(
                measure_steps(*sizes) if is_steps else measure(args.only, args.easydel, *sizes)
            )
        )
        return
    times: dict[str, list[float]] = {name: [] for name in MANAGERS}
    for _ in range(args.turns):
        for name in MANAGERS:
            command = [sys.executable, __file__, str(args.easydel), "--only", name]
            for option in ("requests", "tokens", "steps"):
                command += [f"--{option}", str(getattr(args, option))]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            times[name] += json.loads(done.stdout.splitlines()[-1])
    theirs = statistics.median(times["easydel"])
    print(f"decode step of {args.requests} requests of {args.tokens} tokens")
    for name in MANAGERS:
        ours = statistics.median(times[name])
        print(
            f"  {LABELS[name]:24} {ours:8.1f} us a step, {1e3 * ours / args.requests:6.0f} ns a request"
            f"{'' if name == 'easydel' else f'   {theirs / ours:4.1f}x EasyDeL'}"
        )


if __name__ == "__main__":
    main()
