"""Continuous batching on the step calls of `CacheManager`: which tokens of which requests come next.

Knows a manager and arrays, no model. `submit` queues requests; then, step by step, `schedule` says what
to compute and holds the pages for it, and `complete` takes the tokens that were said:

  running first   one token for each request that decodes, then chunks of prompts in the rest of the
                  token budget, so that a long prompt does not hold up those that talk (Sarathi-Serve)
  then waiting    by priority, and first come, first served within one: nobody overtakes
  shards          a request goes where most of its prompt is cached, of those where it has room
  pool full       the last in that order is preempted (in a shard, of those there): it gives its pages back, keeps its tokens, and
                  computes again later what the prefix cache has lost by then (vLLM's recompute)

The first in order of those that run is never preempted for another, so it gets on in each step. Hence
any request that alone fits the pool finishes, once those before it have.
"""

import heapq
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagedkv import CacheManager, Request

from .running import Ints, RunningRequests, Step


class Scheduler:
    """Decides who computes what, by priority and arrival. Has the manager to itself.

    Args:
      manager: Requests stay in the data-parallel shard in which they were started.
      max_running: Most requests that hold pages at a time (in vLLM ``max_num_seqs``).
      token_budget: Most tokens of a step, at least ``max_running`` (``max_num_batched_tokens``).
      chunk_size: Most tokens of a request in a step (``long_prefill_token_threshold``);
        ``token_budget`` if None.
      watermark: Share of the pages, 0 to 1, that must stay free when a request is started, for those
        that run. Does not count while none does.
      full_sequence_must_fit: Start a request only if all tokens that it has by now fit in the free
        pages, not only its first chunk. As vLLM's option of that name, it leaves the answer to come out
        of account, and what chunks of others are still going to take.
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
        for name, size in (("max_running", max_running), ("chunk_size", chunk_size)):
            if size is not None and size < 1:
                raise ValueError(f"[Scheduler] {name} must be at least 1, got {size}")
        if token_budget < max_running:
            raise ValueError(
                f"[Scheduler] token_budget must be at least max_running {max_running}, "
                f"got {token_budget}"
            )
        if not 0 <= watermark <= 1:
            raise ValueError(f"[Scheduler] watermark must be in [0, 1], got {watermark}")
        self.manager = manager
        self.num_preemptions = 0
        self.num_tokens_reused = 0  # found in the prefix cache
        # Of prompts, when they were started first: not of those that were preempted.
        self.num_prompt_tokens = 0
        self.num_prompt_tokens_reused = 0
        self._max_running = max_running
        self._token_budget = token_budget
        self._chunk_size = min(chunk_size or token_budget, token_budget)
        # Of a shard. The first has the null page.
        self._num_pages = manager.num_pages // manager.data_parallel_size - 1
        self._num_pages_kept = int(watermark * self._num_pages)
        self._full_sequence_must_fit = full_sequence_must_fit
        self._eos_id = eos_id
        self._num_submitted = 0
        self._preempted: set[int] = set()
        self._requests: dict[int, tuple[Request, int, int]] = {}  # with length of prompt, and end
        self._waiting: list[tuple[int, int, int]] = []  # heap of (priority, arrival, handle)
        self._running = RunningRequests()
        self._step: Step | None = None  # scheduled and not complete

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    def can_serve(self, num_tokens: int, *, num_encoder_tokens: int = 0) -> bool:
        """Whether a prompt and its longest answer, at least 2 tokens in all, can ever fit.

        What `submit` would refuse for its length is not served, however long it waits.
        """
        return (
            num_tokens <= self.manager.max_model_len
            and self._num_pages_needed(num_tokens, num_encoder_tokens) <= self._num_pages
        )

    def _num_pages_needed(self, num_tokens: int, num_encoder_tokens: int) -> int:
        return self.manager.max_pages_per_request(
            num_tokens - 1,  # the last token is never computed
            max_new_tokens=self._chunk_size,
            num_encoder_tokens=num_encoder_tokens,
        )

    def submit(self, request: Request, max_new_tokens: int, *, priority: int = 0) -> int:
        """Queues a request. The tokens of its answer are appended to it.

        Args:
          request: Holds no pages, and has no handle. At least one token.
          max_new_tokens: At least 1.
          priority: Lower is earlier, as in vLLM; int32. Requests of one priority go by arrival.

        Returns:
          Its handle, which is gone when it has finished.

        Raises:
          TypeError: If a number is not an integer.
          ValueError: If an argument is out of range, or if prompt and answer can never fit in the
            model or in the pool; for extra keys that the manager's hash algorithm does not take. Then
            nothing is queued.
        """
        operation = f"[Scheduler.submit] {request.request_id}:"
        max_new_tokens, priority = index(max_new_tokens), index(priority)
        num_prompt, limit = request.num_tokens, self.manager.max_model_len
        if num_prompt == 0:
            raise ValueError(f"{operation} the prompt must have at least 1 token")
        if max_new_tokens < 1:
            raise ValueError(f"{operation} max_new_tokens must be at least 1, got {max_new_tokens}")
        if not -(2**31) <= priority < 2**31:
            raise ValueError(f"{operation} priority must fit in int32, got {priority}")
        if num_prompt + max_new_tokens > limit:
            raise ValueError(
                f"{operation} {num_prompt} prompt tokens and {max_new_tokens} new ones: "
                f"the model takes at most {limit}"
            )
        if request.is_allocated:
            raise ValueError(f"{operation} the request holds pages already")
        end = num_prompt + max_new_tokens
        needed = self._num_pages_needed(end, request.num_encoder_tokens)
        if needed > self._num_pages:
            owner = "pool" if self.manager.data_parallel_size == 1 else "first shard"
            raise ValueError(
                f"{operation} {end} tokens need {needed} pages: "
                f"the {owner} has {self._num_pages} to give"
            )
        handles = self.manager.add_requests([request])
        try:
            self.manager.match_requests(handles)  # hashes the prompt, or raises for its extra keys
        except Exception:
            self.manager.remove_requests(handles)
            raise
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
        if self._step is not None:
            raise ValueError("[Scheduler.schedule] the step before is not complete")
        num_running = self.num_running
        counts = self._make_room(self._running.share(self._token_budget, self._chunk_size))
        if self.num_running == num_running:  # else the pool is full
            counts = self._start_waiting(counts)
        step = self._running.step(counts)
        self._step = step if len(step.handles) else None
        return step

    def complete(self, step: Step, next_tokens: Any) -> NDArray[np.bool_]:
        """Says that a step is computed: its full pages can be found, and answers grow.

        Args:
          step: What `schedule` gave last.
          next_tokens: Integers ``[n]``: what follows the last new token of each request. Read only
            where ``step.speaks``.

        Returns:
          Which requests have finished: bool ``[n]``. They hold no pages, and their handles are gone.

        Raises:
          ValueError: If it is another step, or complete already; for tokens of another shape or kind,
            or that do not fit in int32. Then nothing is done.
        """
        operation = "[Scheduler.complete]"
        if step is not self._step:
            raise ValueError(f"{operation} the step is not the one to be completed")
        tokens = np.asarray(next_tokens)
        if tokens.shape != step.handles.shape or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"{operation} next_tokens must be {len(step.handles)} integers, "
                f"got {tokens.dtype} of shape {tokens.shape}"
            )
        wide = tokens[step.speaks]
        said = wide.astype(np.int32)
        if (said != wide).any():
            raise ValueError(f"{operation} next_tokens must fit in int32")

        self._step = None
        self.manager.commit_step(step.handles, step.num_new_tokens)
        self.manager.append_tokens(step.handles[step.speaks], said)
        is_finished = self._running.advance(step, said, self._eos_id)
        gone = step.handles[is_finished]
        if len(gone):
            self.manager.remove_requests(gone)
            for handle in gone.tolist():
                del self._requests[handle]
                self._preempted.discard(handle)
        return is_finished

    def _make_room(self, counts: Ints) -> Ints:
        """Holds pages for the running requests. Where they do not fit, the last of the shard goes.

        Returns:
          The counts of those that still run.
        """
        rows = np.flatnonzero(counts)
        num_done = 0
        while True:
            some = rows[num_done:]
            grant = self.manager.allocate_step(self._running.handles[some], counts[some])
            num_done += grant.num_requests
            if num_done == len(rows):
                return counts
            last = self._running.last_in(self._running.shards[rows[num_done]])
            gone = self._running.pop(last)
            self.manager.free_requests(np.array(gone[2:], np.int64))
            heapq.heappush(self._waiting, gone)
            self._preempted.add(gone[2])
            self.num_preemptions += 1
            counts = np.delete(counts, last)
            rows = rows[rows != last]
            rows -= rows > last

    def _start_waiting(self, counts: Ints) -> Ints:
        """Starts those in front of the queue. Returns the counts of all that run then."""
        started: list[int] = []
        budget = self._token_budget - int(counts.sum())
        while self._waiting and budget and self.num_running < self._max_running:
            count = self._start_first(budget)
            if not count:
                break
            started.append(count)
            budget -= count
        if not started:
            return counts
        return np.concatenate([counts, started])[self._running.sort()]

    def _start_first(self, budget: int) -> int:
        """Starts the first of the queue, if it may be. Returns how many tokens it is to compute."""
        priority, arrival, handle = self._waiting[0]
        request, num_prompt, end = self._requests[handle]
        shards = self._shards_for(handle)
        if self._is_being_computed(request, shards[0][1]):
            return 0
        for shard, num_cached in shards:
            count = min(request.num_tokens - num_cached, self._chunk_size, budget)
            grant = self.manager.allocate_step(
                [handle],
                [count],
                num_cached_tokens=[num_cached],
                dp_shards=[shard],
                watermark_pages=self._num_pages_kept if self._runs_in(shard) else 0,
                full_sequence_must_fit=self._full_sequence_must_fit,
            )
            if grant.num_requests:
                break
        else:
            return 0
        heapq.heappop(self._waiting)
        self._running.add(
            handle,
            priority=priority,
            arrival=arrival,
            shard=shard,
            num_prompt_tokens=num_prompt,
            num_tokens=request.num_tokens,
            num_computed_tokens=num_cached,
            end=end,
        )
        self.num_tokens_reused += num_cached
        if handle not in self._preempted:
            self.num_prompt_tokens += num_prompt
            self.num_prompt_tokens_reused += num_cached
        return count

    def _shards_for(self, handle: int) -> list[tuple[int, int]]:
        """Shards, and how many tokens each has of a request: the most first, then the emptiest.

        The only shard of a pool is -1: any.
        """
        if self.manager.data_parallel_size == 1:
            return [(-1, int(self.manager.match_requests([handle])[0]))]
        num_cached = self.manager.match_shards([handle])[0]
        num_running = np.bincount(self._running.shards, minlength=len(num_cached))
        order = np.lexsort([num_running, -num_cached])
        return list(zip(order.tolist(), num_cached[order].tolist(), strict=True))

    def _runs_in(self, shard: int) -> bool:
        return bool((self._running.shards == shard).any())

    def _is_being_computed(self, request: Request, num_cached: int) -> bool:
        """Whether a running request is about to compute the first page that is missing.

        To wait for it costs a step or two; not to wait, the whole rest of a shared prefix. Only those
        that have the page ahead of them are asked for its digest: few, while the others decode.
        """
        # EAGLE computes the last unit of a hit again.
        num_units = 2 if self.manager.use_eagle else 1
        end = num_cached + num_units * self.manager.prefix_unit
        if not self.manager.enable_caching or end >= request.num_tokens:
            return False
        page = end // self.manager.hash_page_size - 1
        return any(
            self._requests[handle][0].page_hash(page) == request.page_hash(page)
            for handle in self._running.ahead_of(end)
        )
