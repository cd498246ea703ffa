"""A model that answers on pagedkv: requests join and leave between steps, and share prefixes.

`Scheduler` decides who computes what, and holds the pages for it. The engine runs the model over that:
it writes the K/V of the tokens to the slots of `slot_mapping`, and reads the pages of `page_table`, of
each group of layers. One step serves chunks of prompts and decoding requests together.
"""

import os
from dataclasses import dataclass, field

import jax
import numpy as np

from pagedkv import CacheManager, Request
from pagedkv.kv_pool import KVPool
from pagedkv.planning.sizes import format_bytes

from .batching import lay_out
from .paged_model import IntArray, PagedModel
from .running import Step
from .scheduler import Scheduler
from .stats import EngineStats, Stopwatch


@dataclass(eq=False)
class Generation:
    """A prompt and the answer to it so far."""

    request: Request
    max_new_tokens: int
    answer: list[int] = field(default_factory=list)
    is_finished: bool = False


class Engine:
    """Answers prompts greedily, by priority, and first come, first served within one.

    Args:
      model: Engines may share one, and its compiled programs with it.
      eos_id: The token that ends an answer.
      num_pages: Pages of the pool, the null page among them.
      page_size: Tokens of a page.
      batch_size: Most requests that run at a time.
      chunk_size: Most tokens of a prompt computed in one step, which takes up to ``batch_size`` more
        tokens: of those that decode, and of other prompts.
      prefix_cache: Whether requests share the pages of equal prefixes.

    Raises:
      ValueError: If a size is out of range.
      MemoryError: If there is no room for so many pages.
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
        _require_int32(2, num_pages=num_pages)
        _require_int32(1, page_size=page_size, batch_size=batch_size, chunk_size=chunk_size)
        groups = model.make_groups(page_size)
        self.model = model
        self.cache = _make_cache(model, num_pages, page_size)
        self.manager = CacheManager(
            num_pages=num_pages,
            kv_cache_groups=groups,
            max_model_len=model.config.max_model_len,
            enable_caching=prefix_cache,
        )
        self.stats = EngineStats(
            in_prefill=Stopwatch(model.clock), in_decode=Stopwatch(model.clock)
        )
        self.scheduler = Scheduler(
            self.manager,
            max_running=batch_size,
            token_budget=batch_size + chunk_size,
            chunk_size=chunk_size,
            eos_id=eos_id,
        )
        self._batch_size = batch_size
        self._chunk_size = chunk_size
        self._table_width = -(-model.config.max_model_len // page_size)
        if None in model.config.windows:  # a group that keeps all its pages
            self._table_width = min(self._table_width, num_pages - 1)
        self._generations: dict[int, Generation] = {}  # by handle

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    @property
    def num_pages_in_use(self) -> int:
        return self.manager.num_pages - 1 - self.manager.num_free_pages

    def submit(
        self, request_id: str, prompt: IntArray, max_new_tokens: int, *, priority: int = 0
    ) -> Generation:
        """Queues a prompt, whose answer grows as `step` is called.

        Args:
          request_id: A name for messages.
          prompt: int32 ``[n]``, at least one token.
          max_new_tokens: At least 1. The answer ends sooner at the token ``eos_id``.
          priority: Lower is earlier.

        Raises:
          ValueError: If an argument is out of range, or prompt and answer can never fit in the
            model or in the pool. Then nothing is queued.
        """
        vocab_size = self.model.config.vocab_size
        if len(prompt) and (prompt.min() < 0 or prompt.max() >= vocab_size):
            raise ValueError(f"[Engine.submit] {request_id}: tokens must be in [0, {vocab_size})")
        with self.stats.in_pagedkv:
            generation = Generation(Request(request_id, prompt), max_new_tokens)
            handle = self.scheduler.submit(generation.request, max_new_tokens, priority=priority)
        self._generations[handle] = generation
        return generation

    def step(self) -> list[tuple[Generation, int]]:
        """Computes a chunk of the prompts that need it, and the next token of all other requests.

        Returns:
          The generations that have a new token, with the token.
        """
        with self.stats.in_pagedkv:
            step = self.scheduler.schedule()
        self.stats.num_steps += 1
        self.stats.peak_pages = max(self.stats.peak_pages, self.num_pages_in_use)
        self.stats.num_preemptions = self.scheduler.num_preemptions
        self.stats.num_tokens_reused = self.scheduler.num_tokens_reused
        num_requests = len(step.handles)
        if not num_requests:
            return []
        # Arrays of two sizes mean two programs to compile.
        is_decode_step = bool((step.num_new_tokens == 1).all())
        with self.stats.in_decode if is_decode_step else self.stats.in_prefill:
            next_tokens = self._run(
                step, self._batch_size + (0 if is_decode_step else self._chunk_size)
            )
        if is_decode_step:
            self.stats.num_tokens_in_decode += num_requests
        num_decoded = int(step.is_decoding.sum())
        self.stats.num_tokens_decoded += num_decoded
        self.stats.num_tokens_prefilled += int(step.num_new_tokens.sum()) - num_decoded
        with self.stats.in_pagedkv:
            is_finished = self.scheduler.complete(step, next_tokens)
        return self._answer(step, next_tokens, is_finished)

    def _run(self, step: Step, num_tokens: int) -> IntArray:
        """Runs the model over a step, padded to ``num_tokens``.

        Returns:
          What follows the last token of each request: int32 ``[n]``.
        """
        handles, counts = step.handles, step.num_new_tokens
        with self.stats.in_pagedkv:
            manager, groups = self.manager, range(self.manager.num_groups)
            tokens = manager.next_tokens(handles, counts)
            slots = [manager.slot_mapping(handles, counts, group) for group in groups]
            tables = [manager.page_table(handles, self._table_width, group) for group in groups]
        inputs = lay_out(
            tokens,
            step.num_computed_tokens,
            counts,
            slots=slots,
            page_tables=tables,
            num_tokens=num_tokens,
            num_requests=self._batch_size,
        )
        self.cache, next_tokens, num_dropped = self.model.step(self.cache, inputs)
        if int(num_dropped):
            raise RuntimeError(
                f"[Engine.step] {num_dropped} ids were out of range: a bug in pagedkv"
            )
        return np.asarray(next_tokens)[: len(handles)]

    def _answer(
        self, step: Step, next_tokens: IntArray, is_finished: np.ndarray
    ) -> list[tuple[Generation, int]]:
        spoken = []
        for i in np.flatnonzero(step.speaks).tolist():
            generation, token = self._generations[int(step.handles[i])], int(next_tokens[i])
            generation.answer.append(token)
            spoken.append((generation, token))
        for i in np.flatnonzero(is_finished).tolist():
            self._generations.pop(int(step.handles[i])).is_finished = True
        return spoken


def _require_int32(minimum: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < minimum:
            raise ValueError(f"[Engine] {name} must be at least {minimum}, got {size}")
        if size >= 2**31:
            raise ValueError(f"[Engine] {name} must be below 2^31, got {size}")


def _make_cache(model: PagedModel, num_pages: int, page_size: int) -> KVPool:
    """Asks first where there is room: a host may promise memory that it does not have."""
    needed = model.num_cache_bytes(num_pages, page_size)
    message = f"[Engine] {num_pages} pages of {page_size} tokens take {format_bytes(needed)}"
    if jax.default_backend() == "cpu":
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            raise MemoryError(f"{message}, this machine has {format_bytes(there)}")
    try:
        return model.make_cache(num_pages, page_size)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise MemoryError(f"{message}, which the device does not have") from None
