"""Continuous batching on the step calls of `CacheManager`: which tokens of which requests come next.

Knows a manager and arrays, no model. `submit` queues requests; then, step by step, `schedule` says what
to compute and holds the pages for it, and `complete` takes the tokens that were said:

  running first   one token for each request that decodes, then chunks of prompts in the rest of the
                  token budget, so that a long prompt does not hold up those that talk (Sarathi-Serve)
  then waiting    by priority, and first come, first served within one: nobody overtakes
  pool full       the last in that order is preempted: it gives its pages back, keeps its tokens, and
                  computes again later what the prefix cache has lost by then (vLLM's recompute)

The first in order of those that run is never preempted for another, so it gets on in each step. Hence
any request that alone fits the pool finishes, as long as those before it do.
"""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagedkv import CacheManager, Request

# Columns of the running requests, one row each in memory: plain int64 arrays.
HANDLE, PRIORITY, ARRIVAL, NUM_PROMPT, NUM_TOKENS, NUM_COMPUTED, END = range(7)


@dataclass(frozen=True, eq=False)
class Step:
    """What to compute next. All arrays have one entry a request, shape ``[n]``."""

    handles: NDArray[np.int64]
    num_computed_tokens: NDArray[np.int32]  # before the step: the position of its first token
    num_new_tokens: NDArray[np.int32]  # at least 1
    is_decoding: NDArray[np.bool_]  # whether its one new token is the last that was said
    speaks: NDArray[np.bool_]  # whether all its tokens are computed then, so that one follows
    rows: NDArray[np.intp]  # where the scheduler keeps it


class Scheduler:
    """Decides who computes what, by priority and arrival. Has the manager to itself.

    Args:
      manager: With one data-parallel shard. Its requests are this scheduler's alone.
      max_running: Most requests that hold pages at a time (vLLM: ``max_num_seqs``).
      token_budget: Most tokens of a step, at least ``max_running`` (``max_num_batched_tokens``).
      chunk_size: Most tokens of one request in a step; ``token_budget`` if None
        (``long_prefill_token_threshold``).
      watermark: Share of the pages, 0 to 1, that stay free for running requests when another one is
        started. Does not count while none runs, as in vLLM.
      full_sequence_must_fit: Start a request only if all tokens that it has now fit the free pages, not
        only its first chunk: vLLM's option of that name. Its answer is not counted. Free pages are
        those of now: chunks that others have still to compute are not set apart.
      eos_id: The token that ends an answer, if there is one.

    Raises:
      ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        manager: CacheManager,
        *,
        max_running: int = 256,
        token_budget: int = 2048,
        chunk_size: int | None = None,
        watermark: float = 0.01,
        full_sequence_must_fit: bool = True,
        eos_id: int | None = None,
    ) -> None:
        chunk_size = token_budget if chunk_size is None else chunk_size
        _require(max_running >= 1, "", f"max_running must be at least 1, got {max_running}")
        _require(chunk_size >= 1, "", f"chunk_size must be at least 1, got {chunk_size}")
        _require(0 <= watermark <= 1, "", f"watermark must be in [0, 1], got {watermark}")
        _require(
            token_budget >= max_running,
            "",
            f"token_budget must be at least max_running {max_running}, got {token_budget}",
        )
        num_shards = manager.data_parallel_size
        _require(num_shards == 1, "", f"takes a manager with 1 shard, got {num_shards}")
        self.manager = manager
        self.num_preemptions = 0
        self.num_tokens_reused = 0  # found in the prefix cache
        self._max_running = max_running
        self._token_budget = token_budget
        self._chunk_size = min(chunk_size, token_budget)
        self._num_pages_kept = int(watermark * (manager.num_pages - 1))
        self._full_sequence_must_fit = full_sequence_must_fit
        self._eos_id = eos_id
        self._num_submitted = 0
        self._requests: dict[int, tuple[Request, int, int]] = {}  # with length of prompt, and end
        self._waiting: list[tuple[int, int, int]] = []  # heap of (priority, arrival, handle)
        self._running = np.empty((END + 1, 0), np.int64)  # by priority, then arrival
        self._step: Step | None = None  # scheduled and not complete

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return self._running.shape[1]

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    def submit(self, request: Request, max_new_tokens: int, *, priority: int = 0) -> int:
        """Queues a request. Its tokens grow by those of the answer.

        Args:
          request: At least one token, no pages, and not known to a manager by handle.
          max_new_tokens: At least 1.
          priority: Lower is earlier, as in vLLM. Requests of one priority go by arrival.

        Returns:
          Its handle, until it has finished.

        Raises:
          ValueError: If an argument is out of range, or if prompt and answer can never fit in the
            model or in the pool. Then nothing is queued.
        """
        operation = f".submit] {request.request_id}:"
        num_prompt, limit = request.num_tokens, self.manager.max_model_len
        fits_int32 = -(2**31) <= priority < 2**31
        _require(num_prompt >= 1, operation, "the prompt must have at least 1 token")
        _require(fits_int32, operation, f"priority must fit in int32, got {priority}")
        _require(
            max_new_tokens >= 1, operation, f"max_new_tokens must be at least 1, got {max_new_tokens}"
        )
        end = num_prompt + max_new_tokens
        _require(
            end <= limit,
            operation,
            f"{num_prompt} prompt tokens and {max_new_tokens} new ones: the model takes at most {limit}",
        )
        _require(not request.is_allocated, operation, "the request holds pages already")
        handles = self.manager.add_requests([request])
        # The last token of an answer is never computed.
        needed = self._num_pages_needed(handles, end - 1)
        if needed > self.manager.num_pages - 1:
            self.manager.remove_requests(handles)
            _require(
                False,
                operation,
                f"{end} tokens need {needed} pages: the pool has {self.manager.num_pages - 1} to give",
            )
        handle = int(handles[0])
        self._requests[handle] = request, num_prompt, end
        heapq.heappush(self._waiting, (priority, self._num_submitted, handle))
        self._num_submitted += 1
        return handle

    def schedule(self) -> Step:
        """Picks the tokens of the next step, and holds the pages for them.

        Returns:
          The step, to be given to `complete`; of no requests if there is no work.

        Raises:
          ValueError: If the step before is not complete.
        """
        _require(self._step is None, ".schedule]", "the step before is not complete")
        num_running = self.num_running
        counts = self._make_room(self._share_budget())
        if len(counts) == num_running:  # else the pool is full
            counts = self._start_waiting(counts)
        rows = np.flatnonzero(counts)
        handles, _, _, num_prompt, num_tokens, num_computed, _ = self._running.take(rows, axis=1)
        counts = counts[rows]
        step = Step(
            handles=handles,
            num_computed_tokens=num_computed.astype(np.int32),
            num_new_tokens=counts.astype(np.int32),
            is_decoding=(num_computed + 1 == num_tokens) & (num_tokens > num_prompt),
            speaks=num_computed + counts == num_tokens,
            rows=rows,
        )
        self._step = step if len(rows) else None
        return step

    def complete(self, step: Step, next_tokens: Any) -> NDArray[np.bool_]:
        """Says that a step is computed: its full pages can be found, and answers grow.

        Args:
          step: The last that `schedule` gave.
          next_tokens: Integers ``[n]``: what follows the last token of each request. Read where
            ``step.speaks``.

        Returns:
          Which requests have finished, bool ``[n]``. Their pages are free and their handles are gone.

        Raises:
          ValueError: If the step is not the last one, or for tokens of another shape or kind. Then
            nothing is done.
        """
        operation = ".complete]"
        tokens = np.asarray(next_tokens)
        _require(step is self._step, operation, "the step is not the one that schedule gave last")
        is_row = tokens.shape == step.handles.shape and tokens.dtype.kind in "iu"
        got = f"{tokens.dtype} {list(tokens.shape)}"
        _require(is_row, operation, f"takes {len(step.handles)} integers as next_tokens, got {got}")
        said = tokens[step.speaks].astype(np.int32)
        _require(
            bool((said == tokens[step.speaks]).all()), operation, "next_tokens must fit in int32"
        )
        self._step = None
        running, speakers = self._running, step.rows[step.speaks]
        self.manager.commit_step(step.handles, step.num_new_tokens)
        running[NUM_COMPUTED, step.rows] += step.num_new_tokens
        self.manager.append_tokens(step.handles[step.speaks], said)
        running[NUM_TOKENS, speakers] += 1
        ends = running[NUM_TOKENS, speakers] == running[END, speakers]
        if self._eos_id is not None:
            ends |= said == self._eos_id
        is_finished = np.zeros(len(step.handles), np.bool_)
        is_finished[step.speaks] = ends
        if ends.any():
            gone = step.handles[is_finished]
            self.manager.remove_requests(gone)
            self._running = np.delete(running, speakers[ends], axis=1)
            for handle in gone.tolist():
                del self._requests[handle]
        return is_finished

    def _share_budget(self) -> NDArray[np.int64]:
        """Tokens that each running request is to compute in this step."""
        left = self._running[NUM_TOKENS] - self._running[NUM_COMPUTED]
        counts = np.minimum(left, self._chunk_size)
        if counts.sum() > self._token_budget:
            is_chunk = left > 1
            chunks = np.where(is_chunk, counts, 0)
            room = self._token_budget - np.count_nonzero(~is_chunk) - (chunks.cumsum() - chunks)
            counts = np.where(is_chunk, np.clip(room, 0, chunks), 1)
        return counts

    def _make_room(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Holds pages for the running requests; the last of them go until the rest fit.

        Returns:
          The counts of those that still run.
        """
        rows = np.flatnonzero(counts)
        num_done = 0
        while True:
            some = rows[num_done:]
            grant = self.manager.allocate_step(self._running[HANDLE, some], counts[some])
            num_done += grant.num_requests
            if num_done == len(rows):
                return counts
            self._preempt_last()
            counts = counts[:-1]
            rows = rows[rows < len(counts)]

    def _preempt_last(self) -> None:
        last = self._running[:, -1]
        self.manager.free_requests(last[[HANDLE]])
        self._running = np.delete(self._running, -1, axis=1)
        heapq.heappush(self._waiting, (int(last[PRIORITY]), int(last[ARRIVAL]), int(last[HANDLE])))
        self.num_preemptions += 1

    def _start_waiting(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Starts those in front of the queue. Returns the counts of all that run."""
        budget = self._token_budget - int(counts.sum())
        started: list[int] = []
        while self._waiting and self.num_running < self._max_running and budget > sum(started):
            count = self._start_first(budget - sum(started))
            if not count:
                break
            started.append(count)
        if not started:
            return counts
        order = np.lexsort(self._running[[ARRIVAL, PRIORITY]])
        self._running = self._running.take(order, axis=1)
        return np.concatenate([counts, started])[order]

    def _start_first(self, budget: int) -> int:
        """Starts the first in the queue. Returns how many of its tokens are to be computed, or 0."""
        priority, arrival, handle = self._waiting[0]
        request, num_prompt, end = self._requests[handle]
        handles = np.array([handle], np.int64)
        num_cached = int(self.manager.match_requests(handles)[0])
        if self._is_being_computed(request, num_cached):
            return 0
        num_tokens = request.num_tokens
        count = min(num_tokens - num_cached, self._chunk_size, budget)
        until = num_tokens if self._full_sequence_must_fit else num_cached + count
        needed = self._num_pages_needed(handles, until, num_cached)
        needed += self._num_pages_kept if self.num_running else 0
        if needed > self.manager.num_free_pages:
            return 0
        if not self.manager.allocate_step(
            handles, [count], num_cached_tokens=[num_cached]
        ).num_requests:
            return 0
        heapq.heappop(self._waiting)
        row = [handle, priority, arrival, num_prompt, num_tokens, num_cached, end]
        self._running = np.column_stack([self._running, row])
        self.num_tokens_reused += num_cached
        return count

    def _num_pages_needed(
        self, handles: NDArray[np.int64], num_tokens: int, num_cached: int = 0
    ) -> int:
        needed = self.manager.num_pages_needed(
            handles, [num_tokens], max_step_tokens=self._chunk_size, num_cached_tokens=[num_cached]
        )
        return int(needed[0])

    def _is_being_computed(self, request: Request, num_cached: int) -> bool:
        """Whether a running request is about to compute the first page that is missing.

        To wait for it costs a step or two; not to wait, the whole rest of a shared prefix. Only those
        that run and have the page ahead of them are asked for its digest: few, while others decode.
        """
        num_units = 2 if self.manager.use_eagle else 1  # of a hit, EAGLE computes the last again
        end = num_cached + num_units * self.manager.prefix_unit
        if not self.manager.enable_caching or end >= request.num_tokens:
            return False
        running = self._running
        is_ahead = (running[NUM_COMPUTED] < end) & (end <= running[NUM_TOKENS])
        page = end // self.manager.hash_page_size - 1
        return any(
            self._requests[handle][0].page_hash(page) == request.page_hash(page)
            for handle in running[HANDLE, is_ahead].tolist()
        )


def _require(condition: bool, operation: str, message: str) -> None:
    if not condition:
        raise ValueError(f"[Scheduler{operation or ']'} {message}")
