"""Serves the requests of a trace, but computes nothing: what is left of a server without its model."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pagedkv import CacheGroupSpec, CacheManager, Request
from pagedkv.serving.scheduler import Scheduler

from .options import ReplayOptions
from .trace import TraceRequest

MAX_SAMPLES = 1024
# So many wait at the scheduler that it never runs dry, and no more, so that memory stays flat.
_MAX_WAITING = 2


@dataclass(frozen=True)
class Sample:
    """Where a replay was at some time."""

    num_prompt_tokens: int  # of the requests started until then
    num_hit_tokens: int
    num_evictions: int
    num_held_pages: int
    num_cached_pages: int  # held or free


@dataclass
class ReplayResult:
    """What a replay has found.

    Attributes:
      num_pages: Pages of the pool, the null page among them.
      num_requests: That were served.
      num_refused: That could never fit in the pool or the model.
      num_prompt_tokens, num_hit_tokens: Of prompts, when they were started first, and how many of
        them were cached. What a preempted request finds again does not count.
      num_output_tokens: That were said.
      num_steps: Of the scheduler.
      num_preemptions: Requests that had to give their pages back, and began anew.
      num_evictions: Pages that lost their content to another.
      peak_held_pages: Most pages that requests held.
      seconds: Of wall time, parsing included.
      samples: At most `MAX_SAMPLES`, at equal distances in prompt tokens.
    """

    num_pages: int
    num_requests: int = 0
    num_refused: int = 0
    num_prompt_tokens: int = 0
    num_hit_tokens: int = 0
    num_output_tokens: int = 0
    num_steps: int = 0
    num_preemptions: int = 0
    num_evictions: int = 0
    peak_held_pages: int = 0
    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that were cached, 0 to 1."""
        return self.num_hit_tokens / max(1, self.num_prompt_tokens)


def replay(
    trace: Iterable[TraceRequest],
    num_pages: int,
    *,
    groups: Sequence[CacheGroupSpec],
    options: ReplayOptions | None = None,
    on_step: Callable[[ReplayResult], object] = lambda result: None,
) -> ReplayResult:
    """Serves a trace, first come, first served, as `Scheduler` does.

    Requests come as fast as they can be started: the trace's own times count for retention alone. The
    tokens of an answer are found in no prompt.

    Args:
      trace: Requests in order of arrival. Read as they are started.
      num_pages: Of the pool, the null page among them.
      groups: What is cached, with pages of ``options.page_size`` tokens.
      options: All defaults if None.
      on_step: Is given the result so far after each step.

    Raises:
      ValueError: If a manager cannot be made so; what ``trace`` raises.
    """
    options = options or ReplayOptions()
    run = _Run(num_pages, groups, options, on_step)
    start = time.perf_counter()
    for traced in trace:
        run.serve(traced)
    run.finish()
    run.result.seconds = time.perf_counter() - start
    return run.result


class _Run:
    """A manager, its scheduler, and what has been seen of them."""

    def __init__(
        self,
        num_pages: int,
        groups: Sequence[CacheGroupSpec],
        options: ReplayOptions,
        on_step: Callable[[ReplayResult], object],
    ) -> None:
        self.manager = CacheManager(
            num_pages,
            groups,
            options.max_model_len,
            hash_algorithm=options.hash_algorithm,
            data_parallel_size=options.data_parallel_size,
            free_order=options.free_order,
            deduplicate=options.deduplicate,
        )
        self.scheduler = Scheduler(
            self.manager, max_running=options.max_running, token_budget=options.token_budget
        )
        self.options = options
        self.retention = options.retention()
        self.on_step = on_step
        self.result = ReplayResult(num_pages)
        self.now = 0
        self.sample_distance = 1
        self.next_sample = 0

    def serve(self, traced: TraceRequest) -> None:
        """Queues a request, and serves others until few wait."""
        self.now = max(self.now, traced.timestamp)
        num_new = max(1, min(traced.output_length, self.options.max_output_tokens or 2**31))
        if self.scheduler.can_serve(traced.input_length + num_new):
            name = str(self.result.num_requests)
            self.scheduler.submit(Request(name, traced.tokens(), retention=self.retention), num_new)
            self.result.num_requests += 1
        else:
            self.result.num_refused += 1
        while self.scheduler.num_waiting > _MAX_WAITING:
            self.step()

    def finish(self) -> None:
        while self.scheduler.has_work:
            self.step()
        self.manager.assert_no_leaks()
        self._note(is_last=True)

    def step(self) -> None:
        if self.retention is not None:
            self.manager.advance_time(self.now)
        step = self.scheduler.schedule()
        self.result.peak_held_pages = max(
            self.result.peak_held_pages, self.manager.num_pages - 1 - self.manager.num_free_pages
        )
        # Below 0, where no prompt has tokens.
        self.scheduler.complete(step, -1 - (step.handles & 0x3FFFFFFF))
        self.result.num_steps += 1
        self.result.num_output_tokens += int(np.count_nonzero(step.speaks))
        self._note()
        self.on_step(self.result)

    def _note(self, is_last: bool = False) -> None:
        result, scheduler = self.result, self.scheduler
        result.num_prompt_tokens = scheduler.num_prompt_tokens
        result.num_hit_tokens = scheduler.num_prompt_tokens_reused
        if result.num_prompt_tokens < self.next_sample and not is_last:
            return
        result.num_preemptions = scheduler.num_preemptions
        result.num_evictions = self.manager.num_evictions
        num_held = self.manager.num_pages - 1 - self.manager.num_free_pages
        result.samples.append(
            Sample(
                result.num_prompt_tokens,
                result.num_hit_tokens,
                result.num_evictions,
                num_held,
                self.manager.num_cached_pages,
            )
        )
        if len(result.samples) >= MAX_SAMPLES:
            result.samples = result.samples[1::2]
            self.sample_distance *= 2
        self.next_sample = result.num_prompt_tokens + self.sample_distance
