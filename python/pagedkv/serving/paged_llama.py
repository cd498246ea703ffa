"""The llama model on a paged cache: one jitted step, which keeps K/V in pages and reads them there.

This is all that a model needs in order to use pagedkv: `attend_pages` writes the new keys and
values to the slots of their tokens, and gathers the pages of each request to attend over.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pagedkv.cache import PagedAttentionCache

from . import llama
from .llama import Attend, LlamaConfig, LlamaWeights

IntArray = np.ndarray[Any, np.dtype[np.int32]]


class StepInputs(NamedTuple):
    """One step over B rows of Q tokens, each row a piece of one request. All int32.

    Several rows may be pieces of the same request, even neighbours: the keys of all rows are
    written before any row attends.
    """

    tokens: IntArray  # [B, Q]
    positions: IntArray  # [B, Q]; 0 for padding
    slot_mapping: IntArray  # [B, Q]; -1 for padding: its K/V is not written
    page_table: IntArray  # [B, pages]; the pages of each row's request, padded with 0
    last: IntArray  # [B]; the place in the row of the token to go on from


class PagedLlama:
    """A llama model that serves from a `PagedAttentionCache`. Compiles each shape of step once."""

    def __init__(self, config: LlamaConfig, weights: LlamaWeights) -> None:
        self.config = config
        self.weights = weights
        self.compile_seconds = 0.0
        self._programs: dict[object, jax.stages.Compiled] = {}

    def clock(self) -> float:
        """Seconds, standing still while a step is compiled."""
        return time.perf_counter() - self.compile_seconds

    def make_cache(self, num_pages: int, page_size: int) -> PagedAttentionCache:
        return PagedAttentionCache.zeros(
            num_layers=self.config.num_layers,
            num_pages=num_pages,
            page_size=page_size,
            num_kv_heads=self.config.num_kv_heads,
            head_dim=self.config.head_dim,
            dtype=jnp.float32,
        )

    def step(
        self, cache: PagedAttentionCache, inputs: StepInputs
    ) -> tuple[PagedAttentionCache, jax.Array, jax.Array]:
        """Writes the K/V of the new tokens, and says which token follows each row.

        Args:
          cache: Donated: use the returned one from here on.
          inputs: Arrays that nobody changes afterwards; the step may still be reading them.

        Returns:
          The cache, the next tokens int32 ``[B]``, and how many slots were out of range.
        """
        key = jax.tree.map(np.shape, (cache, inputs))
        if key not in self._programs:
            start = time.perf_counter()
            lowered = _step.lower(self.config, self.weights, cache, inputs)
            self._programs[key] = lowered.compile()
            self.compile_seconds += time.perf_counter() - start
        cache, next_tokens, num_dropped = self._programs[key](self.weights, cache, inputs)
        return cache, next_tokens, num_dropped


@partial(jax.jit, static_argnums=0, donate_argnames="cache")
def _step(
    config: LlamaConfig, weights: LlamaWeights, cache: PagedAttentionCache, inputs: StepInputs
) -> tuple[PagedAttentionCache, jax.Array, jax.Array]:
    tokens, positions, slot_mapping, page_table, last = map(jnp.asarray, inputs)
    (cache, num_dropped), hidden = llama.forward(
        config,
        weights,
        tokens,
        positions,
        store=(cache, jnp.int32(0)),
        attend=attend_pages(positions, slot_mapping, page_table),
    )
    ends = hidden[jnp.arange(len(last)), last]
    next_tokens = jnp.argmax(llama.logits(config, weights, ends), axis=-1).astype(jnp.int32)
    return cache, next_tokens, num_dropped


def attend_pages(
    positions: jax.Array, slot_mapping: jax.Array, page_table: jax.Array
) -> Attend[tuple[PagedAttentionCache, jax.Array]]:
    """Returns the attention of a step whose K/V lives in pages.

    The store is the cache, and the count of slots that were out of range so far.
    """

    def attend(
        store: tuple[PagedAttentionCache, jax.Array],
        layer: jax.Array,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
    ) -> tuple[tuple[PagedAttentionCache, jax.Array], jax.Array]:
        cache, num_dropped = store
        key, value = (x.reshape(-1, *x.shape[2:]) for x in (key, value))
        cache, dropped_here = cache.write(layer, key, value, slot_mapping.reshape(-1))
        keys, values = cache.gather(layer, page_table)
        attended = llama.attention(query, keys, values, positions)
        return (cache, num_dropped + dropped_here), attended

    return attend
