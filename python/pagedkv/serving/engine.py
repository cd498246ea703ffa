"""Continuous batching on pagedkv: requests join and leave between steps, and share prefixes.

The life of a request, and the calls of `CacheManager` on its way:

  submit   to the queue
  admit    to the batch: `match` finds the prefix that others have computed, `allocate` adopts it
  run      `allocate` makes room for the next tokens; the model writes their K/V to the slots of
           `slot_mapping` and reads the pages of `page_table`, of each group of layers; `commit` shows
           them to others. One step serves chunks of prompts and decoding requests together
  preempt  back to the queue, when the pool is full: `free`, and computed again later
  finish   `free`
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pagedkv import CacheManager, Request

from .batching import lay_out
from .paged_model import IntArray, PagedModel
from .stats import EngineStats, Stopwatch


@dataclass(eq=False)
class Generation:
    """A prompt and the answer to it so far."""

    request: Request
    max_new_tokens: int
    answer: list[int] = field(default_factory=list)
    is_finished: bool = False

    @property
    def num_tokens_left(self) -> int:
        """Tokens whose K/V is not computed yet: 1 when decoding."""
        return self.request.num_tokens - self.request.num_computed_tokens


# A generation, and how many of its tokens to compute in this step.
Work = tuple[Generation, int]


class Engine:
    """Answers prompts greedily, first come, first served.

    Args:
      model: Engines may share one, and its compiled programs with it.
      eos_id: The token that ends an answer.
      num_pages: Pages of the pool, the null page among them.
      page_size: Tokens of a page.
      batch_size: Most requests that run at a time.
      chunk_size: Most prompt tokens computed in one step.
      prefix_cache: Whether requests share the pages of equal prefixes.

    Raises:
      ValueError: If a size is too small.
    """

    def __init__(
        self,
        model: PagedModel,
        *,
        eos_id: int,
        num_pages: int = 640,
        page_size: int = 16,
        batch_size: int = 32,
        chunk_size: int = 224,
        prefix_cache: bool = True,
    ) -> None:
        _require_at_least(2, num_pages=num_pages)
        _require_at_least(1, page_size=page_size, batch_size=batch_size, chunk_size=chunk_size)
        groups = model.make_groups(page_size)
        self.model = model
        self.manager = CacheManager(
            num_pages=num_pages,
            kv_cache_groups=groups,
            max_model_len=model.config.max_model_len,
            enable_caching=prefix_cache,
        )
        self.cache = model.make_cache(num_pages, page_size)
        self.stats = EngineStats(
            in_prefill=Stopwatch(model.clock), in_decode=Stopwatch(model.clock)
        )
        self._eos_id = eos_id
        self._batch_size = batch_size
        self._chunk_size = chunk_size
        self._specs = [group.kv_cache_spec for group in groups]
        self._table_width = -(-model.config.max_model_len // page_size)
        if None in model.config.windows:  # a group that keeps all its pages
            self._table_width = min(self._table_width, num_pages - 1)
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []  # oldest first

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def num_pages_in_use(self) -> int:
        return self.manager.num_pages - 1 - self.manager.num_free_pages

    def submit(self, request_id: str, prompt: IntArray, max_new_tokens: int) -> Generation:
        """Queues a prompt, whose answer grows as `step` is called.

        Args:
          request_id: A name for messages.
          prompt: int32 ``[n]``, at least one token.
          max_new_tokens: At least 1. The answer ends sooner at the token ``eos_id``.

        Raises:
          ValueError: If an argument is out of range, or prompt and answer can never fit in the
            model or in the pool. Then nothing is queued.
        """
        self._check(request_id, prompt, max_new_tokens)
        with self.stats.in_pagedkv:
            generation = Generation(Request(request_id, prompt), max_new_tokens)
        self._waiting.append(generation)
        return generation

    def step(self) -> list[tuple[Generation, int]]:
        """Computes a chunk of the prompts that need it, and the next token of all other requests.

        Returns:
          The generations that have a new token, with the token.
        """
        with self.stats.in_pagedkv:
            work = self._schedule()
        self.stats.num_steps += 1
        self.stats.peak_pages = max(self.stats.peak_pages, self.num_pages_in_use)
        if not work:
            return []
        is_decoding = all(count == 1 for _, count in work)
        with self.stats.in_decode if is_decoding else self.stats.in_prefill:
            spoken = self._run(work, self._batch_size + (0 if is_decoding else self._chunk_size))
        if is_decoding:
            self.stats.num_tokens_in_decode += len(work)
        return spoken

    def _schedule(self) -> list[Work]:
        """Picks the tokens of this step, and makes room for them."""
        budget = _Budget(self._chunk_size)
        work: list[Work] = []
        num_running = len(self._running)
        for generation in list(self._running):
            count = budget.take(generation.num_tokens_left)
            if count and self._make_room(generation, count):
                work.append((generation, count))
        if len(self._running) == num_running:  # else the pool is full
            work += self._admit(budget)
        return work

    def _make_room(self, generation: Generation, count: int) -> bool:
        """Takes pages from the youngest requests if need be. False if that is the request itself."""
        while generation in self._running:
            if self.manager.allocate(generation.request, count):
                return True
            self._preempt(self._running.pop())
        return False

    def _preempt(self, generation: Generation) -> None:
        self.manager.free(generation.request)
        self._waiting.appendleft(generation)
        self.stats.num_preemptions += 1

    def _admit(self, budget: "_Budget") -> list[Work]:
        work: list[Work] = []
        while self._waiting and len(self._running) < self._batch_size:
            generation = self._waiting[0]
            request = generation.request
            num_cached = self.manager.match(request)
            if self._is_being_computed(request, num_cached // self.manager.page_size):
                break
            count = budget.take(request.num_tokens - num_cached)
            if not count or not self.manager.allocate(request, count, num_cached_tokens=num_cached):
                break
            self.stats.num_tokens_reused += num_cached
            self._running.append(self._waiting.popleft())
            work.append((generation, count))
        return work

    def _is_being_computed(self, request: Request, page: int) -> bool:
        """Whether a running request is about to compute this very page, the first that is missing.

        To wait for it costs a step or two; not to wait, the whole rest of a shared prefix.
        """
        end = (page + 1) * self.manager.page_size
        if not self.manager.enable_caching or end >= request.num_tokens:
            return False
        wanted = request.page_hash(page)
        return any(
            other.num_computed_tokens < end <= other.num_tokens and other.page_hash(page) == wanted
            for other in (generation.request for generation in self._running)
        )

    def _run(self, work: list[Work], num_tokens: int) -> list[tuple[Generation, int]]:
        """Runs the model over the next tokens of each request, and returns what was said.

        The arrays are padded to `num_tokens`: few sizes mean few programs to compile.
        """
        requests = [generation.request for generation, _ in work]
        counts = np.array([count for _, count in work], np.int32)
        with self.stats.in_pagedkv:
            groups = range(self.manager.num_groups)
            slots = [self.manager.slot_mapping(requests, counts, group) for group in groups]
            page_tables = [
                self.manager.page_table(requests, self._table_width, group) for group in groups
            ]
        inputs = lay_out(
            requests,
            counts,
            slots=slots,
            page_tables=page_tables,
            num_tokens=num_tokens,
            num_requests=self._batch_size,
        )
        self.cache, next_tokens, num_dropped = self.model.step(self.cache, inputs)
        with self.stats.in_pagedkv:
            for request, count in zip(requests, counts, strict=True):
                self.manager.commit(request, request.num_computed_tokens + int(count))
        if int(num_dropped):
            raise RuntimeError(
                f"[Engine.step] {num_dropped} ids were out of range: a bug in pagedkv"
            )

        spoken = []
        for (generation, count), token in zip(work, np.asarray(next_tokens).tolist(), strict=False):
            is_decoding = count == 1 and generation.answer
            if is_decoding:
                self.stats.num_tokens_decoded += 1
            else:
                self.stats.num_tokens_prefilled += count
            if generation.num_tokens_left == 0:
                self._speak(generation, token)
                spoken.append((generation, token))
        return spoken

    def _speak(self, generation: Generation, token: int) -> None:
        generation.answer.append(token)
        generation.is_finished = (
            token == self._eos_id or len(generation.answer) == generation.max_new_tokens
        )
        with self.stats.in_pagedkv:
            if generation.is_finished:
                self.manager.free(generation.request)
                self._running.remove(generation)
            else:
                generation.request.append(token)

    def _check(self, request_id: str, prompt: IntArray, max_new_tokens: int) -> None:
        operation = f"[Engine.submit] {request_id}:"
        vocab_size, max_model_len = self.model.config.vocab_size, self.model.config.max_model_len
        if max_new_tokens < 1:
            raise ValueError(f"{operation} max_new_tokens must be at least 1, got {max_new_tokens}")
        if len(prompt) == 0:
            raise ValueError(f"{operation} the prompt must have at least 1 token")
        if prompt.min() < 0 or prompt.max() >= vocab_size:
            raise ValueError(f"{operation} tokens must be in [0, {vocab_size})")
        num_tokens = len(prompt) + max_new_tokens
        if num_tokens > max_model_len:
            raise ValueError(
                f"{operation} {len(prompt)} prompt tokens and {max_new_tokens} new ones: "
                f"the model takes at most {max_model_len}"
            )
        num_pages = self._num_pages_for(num_tokens - 1)  # the last token is never computed
        if num_pages > self.manager.num_pages - 1:
            raise ValueError(
                f"{operation} {num_tokens} tokens need {num_pages} pages of "
                f"{self.manager.page_size}: the pool has {self.manager.num_pages - 1} to give"
            )

    def _num_pages_for(self, num_tokens: int) -> int:
        """Most pages that a request of so many tokens holds at a time, in all groups."""
        page_size = self.manager.page_size

        def most(spec: Any) -> int:
            limit = spec.max_memory_usage_bytes(num_tokens, max_num_batched_tokens=self._chunk_size)
            return int(min(-(-num_tokens // page_size), limit // spec.page_size_bytes))

        return sum(map(most, self._specs))


class _Budget:
    """Prompt tokens that are left in a step. Decoding needs none."""

    def __init__(self, chunk_size: int) -> None:
        self._tokens_left = chunk_size

    def take(self, num_tokens: int) -> int:
        """Returns how many of ``num_tokens`` can be computed in this step."""
        if num_tokens == 1:
            return 1
        count = min(num_tokens, self._tokens_left)
        self._tokens_left -= count
        return count


def _require_at_least(minimum: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < minimum:
            raise ValueError(f"[Engine] {name} must be at least {minimum}, got {size}")
