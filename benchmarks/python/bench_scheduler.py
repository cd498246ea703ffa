"""What scheduling costs in a step of many decoding requests: our `Scheduler`, and EasyDeL's.

    python benchmarks/python/bench_scheduler.py [EASYDEL]

EASYDEL is the wheel of easydel 0.3.0, or a folder with its package; without one, the wheel that
`make peers` fetches. Its scheduler runs unmodified, on its own cache manager; its `EngineCoreOutput`, a
`msgspec.Struct`, is a class with slots here. The two take turns, each in a process of its own; times
are CPU time of the thread. No model runs: the tokens that are said are random.

A step is, in ours, `schedule`, the tokens, slots and page tables of the step, and `complete`; in
EasyDeL's `schedule` and `update_from_output`, without the page tables, which its runner keeps: they
come on top. One request in 16 crosses into a new page, and has the page before hashed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "peers"))

PAGE_SIZE = 16
PERIOD = 16  # steps in which each request crosses one page
TOKEN_BUDGET = 2048
VOCAB_SIZE = 128_000
LABELS = {"easydel": "EasyDeL 0.3.0", "pagedkv": "pagedkv"}
SPEC = {"page_size": PAGE_SIZE, "num_kv_heads": 8, "head_size": 128, "dtype": "bfloat16"}


@dataclass(frozen=True)
class Sizes:
    requests: int
    tokens: int
    steps: int

    @property
    def max_model_len(self) -> int:
        return max(self.tokens + self.steps + 512, TOKEN_BUDGET)

    @property
    def num_pages(self) -> int:
        return self.requests * (self.max_model_len // PAGE_SIZE + 2)

    def prompts(self) -> list[np.ndarray]:
        """Of lengths that spread over a page, so that as many requests cross in each step."""
        rng = np.random.default_rng(0)
        lengths = [self.tokens - PAGE_SIZE // 2 + i % PAGE_SIZE for i in range(self.requests)]
        return [rng.integers(VOCAB_SIZE, size=length).astype(np.int32) for length in lengths]


def measure_pagedkv(sizes: Sizes) -> dict[str, list[int]]:
    """Returns nanoseconds of each part of each step."""
    from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request
    from pagedkv.serving.running import Step
    from pagedkv.serving.scheduler import Scheduler

    groups = [CacheGroupSpec(FullAttentionSpec(**SPEC))]
    manager = CacheManager(sizes.num_pages, groups, sizes.max_model_len)
    scheduler = Scheduler(manager, max_running=sizes.requests, token_budget=TOKEN_BUDGET, eos_id=-1)
    for i, prompt in enumerate(sizes.prompts()):
        scheduler.submit(Request(f"{i}", prompt), sizes.max_model_len - len(prompt))
    rng = np.random.default_rng(1)

    def say(step: Step) -> np.ndarray:
        return rng.integers(VOCAB_SIZE, size=len(step.handles)).astype(np.int32)

    while True:
        step = scheduler.schedule()
        scheduler.complete(step, say(step))
        if len(step.handles) == sizes.requests == step.is_decoding.sum():
            break
    width = sizes.max_model_len // PAGE_SIZE
    parts: dict[str, list[int]] = {"schedule": [], "tables": [], "complete": []}
    for _ in range(PERIOD + sizes.steps):
        times = [time.thread_time_ns()]
        step = scheduler.schedule()
        times.append(time.thread_time_ns())
        tokens = manager.next_tokens(step.handles, step.num_new_tokens)
        slots = manager.slot_mapping(step.handles, step.num_new_tokens)
        table = manager.page_table(step.handles, width)
        times.append(time.thread_time_ns())
        said = say(step)
        begin = time.thread_time_ns()
        is_finished = scheduler.complete(step, said)
        times.append(time.thread_time_ns() - begin + times[-1])
        assert len(tokens) == len(slots) == len(table) == sizes.requests
        assert step.is_decoding.all()
        assert not is_finished.any()
        for part, nanoseconds in zip(parts.values(), np.diff(times).tolist(), strict=True):
            part.append(nanoseconds)
    return {name: part[PERIOD:] for name, part in parts.items()}


class EngineCoreOutput:
    """What EasyDeL makes for each token that is said: its fields, no checks."""

    __slots__ = (
        "events",
        "finish_reason",
        "new_prompt_logprobs_tensors",
        "new_token_ids",
        "num_cached_tokens",
        "request_id",
        "stop_reason",
    )

    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name, value)


def load_easydel(root: Path) -> types.SimpleNamespace:
    """EasyDeL's scheduler, and what it is made of."""
    import importlib

    import easydel_core

    modules = easydel_core.load(root)
    package = types.ModuleType(f"{easydel_core.ESURGE}.scheduler")
    package.__path__ = [str(root.resolve() / package.__name__.replace(".", "/"))]
    sys.modules[package.__name__] = package
    loggings: Any = types.ModuleType("eformer.loggings")
    loggings.get_logger = lambda name: sys.modules[f"{easydel_core.ESURGE}.logger"].logger
    sys.modules["eformer"] = types.ModuleType("eformer")
    sys.modules["eformer.loggings"] = loggings
    engine_types: Any = sys.modules[f"{easydel_core.ESURGE}.engine_types"]
    engine_types.EngineCoreOutput = EngineCoreOutput
    engine_types.EngineCoreOutputs = types.SimpleNamespace
    for name in ("config", "outputs", "scheduler.scheduler"):
        module = importlib.import_module(f"{easydel_core.ESURGE}.{name}")
        setattr(modules, name.rpartition(".")[2], module)
    return modules


def measure_easydel(sizes: Sizes, root: Path) -> dict[str, list[int]]:
    """Returns nanoseconds of each part of each step."""
    easydel = load_easydel(root)
    layers = easydel.interface.FullAttentionSpec(**SPEC, use_mla=False)
    groups = [easydel.interface.CacheGroupSpec(kv_cache_spec=layers)]
    config = easydel.config.Config(
        scheduler_config=easydel.config.SchedulerConfig(
            max_num_seqs=sizes.requests,
            max_num_batched_tokens=TOKEN_BUDGET,
            max_model_len=sizes.max_model_len,
            chunked_prefill_enabled=True,
        ),
        cache_config=easydel.config.CacheConfig(sizes.num_pages, PAGE_SIZE, True),
    )
    scheduler = easydel.scheduler.Scheduler(
        config, easydel.interface.CacheGroupsConfig(sizes.num_pages, groups)
    )
    params = types.SimpleNamespace(
        prompt_logprobs=None,
        max_tokens=sizes.max_model_len,
        extra_args=None,
        guided_decoding=None,
        ignore_eos=False,
        stop_token_ids=(),
    )
    requests = {}
    for i, prompt in enumerate(sizes.prompts()):
        requests[f"{i}"] = easydel.request.EngineRequest(f"{i}", prompt.tolist(), params, None)
        scheduler.add_request(requests[f"{i}"])
    rng = np.random.default_rng(1)

    def say(step: Any) -> Any:
        names = list(step.num_scheduled_tokens)
        tokens = rng.integers(VOCAB_SIZE, size=len(names)).tolist()
        speaks = [requests[name].num_computed_tokens == requests[name].num_tokens for name in names]
        return easydel.outputs.ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=[[t] if s else [] for t, s in zip(tokens, speaks, strict=True)],
            spec_token_ids=None,
            logprobs=None,
            prompt_logprobs_dict={},
        )

    while True:
        step = scheduler.schedule()
        scheduler.update_from_output(step, say(step))
        if len(step.num_scheduled_tokens) == sizes.requests == step.total_num_scheduled_tokens:
            break
    parts: dict[str, list[int]] = {"schedule": [], "complete": []}
    for _ in range(PERIOD + sizes.steps):
        begin = time.thread_time_ns()
        step = scheduler.schedule()
        parts["schedule"].append(time.thread_time_ns() - begin)
        said = say(step)
        begin = time.thread_time_ns()
        outputs = scheduler.update_from_output(step, said)
        parts["complete"].append(time.thread_time_ns() - begin)
        assert step.total_num_scheduled_tokens == len(outputs[0].outputs) == sizes.requests
    return {name: part[PERIOD:] for name, part in parts.items()}


def microseconds(nanoseconds: list[int]) -> float:
    """The median over periods of the mean step."""
    starts = range(0, len(nanoseconds), PERIOD)
    return statistics.median(statistics.mean(nanoseconds[i : i + PERIOD]) for i in starts) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("easydel", type=Path, nargs="?")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=LABELS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.easydel is None:
        from easydel_core import find_wheel

        args.easydel = find_wheel()
    sizes = Sizes(args.requests, args.tokens, args.steps)
    if args.only:
        is_ours = args.only == "pagedkv"
        print(
            json.dumps(measure_pagedkv(sizes) if is_ours else measure_easydel(sizes, args.easydel))
        )
        return
    times: dict[str, dict[str, list[int]]] = {name: {} for name in LABELS}
    for _ in range(args.turns):
        for name, parts in times.items():
            command = [sys.executable, __file__, str(args.easydel), "--only", name]
            for option in ("requests", "tokens", "steps"):
                command += [f"--{option}", str(getattr(args, option))]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            for part, steps in json.loads(done.stdout.splitlines()[-1]).items():
                parts.setdefault(part, []).extend(steps)
    print(f"scheduling of a step of {args.requests} decoding requests of {args.tokens} tokens")
    totals = {
        name: microseconds([sum(step) for step in zip(*parts.values(), strict=True)])
        for name, parts in times.items()
    }
    for name, total in totals.items():
        parts_text = ", ".join(f"{part} {microseconds(t):.1f}" for part, t in times[name].items())
        ratio = "" if name == "easydel" else f"   {totals['easydel'] / total:.1f}x EasyDeL"
        print(f"  {LABELS[name]:14} {total:8.1f} us a step ({parts_text}){ratio}")


if __name__ == "__main__":
    main()
