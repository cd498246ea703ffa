"""A model on a paged cache: one jitted step, which keeps K/V in pages and reads them there.

This is all that a model needs in order to use pagedkv: `attend_pages` writes the new keys and
values to the slots of their tokens, and attends over the pages of each request.
"""

import math
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pagedkv import CacheGroupSpec
from pagedkv.kv_pool import KVPool

from .choices import KV_DTYPES
from .family import Family, ModelConfig
from .layer_groups import LayerPlaces, make_groups
from .layers import Attend

IntArray = np.ndarray[Any, np.dtype[np.int32]]


class StepInputs(NamedTuple):
    """One step over the next tokens of up to R requests, back to back in T places. All int32.

    Each of the G groups of layers has pages of its own.

    A request may have one token, when it is decoding, or a chunk of its prompt. Places that are left
    over are padding, and so are requests: those have no tokens.
    """

    tokens: IntArray  # [T]
    positions: IntArray  # [T]; 0 for padding
    slot_mapping: IntArray  # [G, T]; -1 for padding: its K/V is not written
    page_table: IntArray  # [G, R, pages]; padded with 0
    query_starts: IntArray  # [R + 1]; request r has the tokens from r's start to that of r + 1
    context_lens: IntArray  # [R]; tokens of the request so far, those of this step among them


class PagedModel:
    """A model that serves from a `KVPool`. Compiles each shape of step once.

    Args:
      family: What the model computes.
      config: Its sizes.
      weights: A pytree that the family knows.
      kv_dtype: What the pages keep K/V as: "float32", "bfloat16", "float16", or quantised with a
        scale for each head of a token, "int8" or "float8_e4m3fn".
    """

    def __init__(
        self, family: Family, config: ModelConfig, weights: Any, kv_dtype: str = "bfloat16"
    ) -> None:
        if kv_dtype not in KV_DTYPES:
            raise ValueError(
                f"[PagedModel] kv_dtype must be one of {', '.join(KV_DTYPES)}, got {kv_dtype!r}"
            )
        self.kv_dtype = kv_dtype
        self.family = family
        self.config = config
        self.weights = weights
        self.places = LayerPlaces.of(config)
        self.compile_seconds = 0.0
        self._programs: dict[object, jax.stages.Compiled] = {}

    def clock(self) -> float:
        """Seconds, standing still while a step is compiled."""
        return time.perf_counter() - self.compile_seconds

    def make_groups(self, page_size: int) -> list[CacheGroupSpec]:
        """Returns the groups of layers whose pages a manager has to keep."""
        return make_groups(self.config, page_size, self.kv_dtype)

    def make_cache(self, num_pages: int, page_size: int) -> KVPool:
        """Returns pages of zeros that all groups share: a tensor for each layer of one group."""
        return KVPool.zeros(
            num_layers=self.places.num_tensors,
            num_pages=num_pages,
            page_size=page_size,
            num_kv_heads=self.config.num_kv_heads,
            head_dim=self.config.head_dim,
            dtype=self.kv_dtype,
            granularity=KV_DTYPES[self.kv_dtype],
        )

    def num_cache_bytes(self, num_pages: int, page_size: int) -> int:
        """What `make_cache` would take."""
        arrays = jax.tree.leaves(jax.eval_shape(lambda: self.make_cache(num_pages, page_size)))
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)

    def step(self, cache: KVPool, inputs: StepInputs) -> tuple[KVPool, jax.Array, jax.Array]:
        """Writes the K/V of the new tokens, and says which token follows the last of each request.

        Args:
          cache: Donated: use the returned one from here on.
          inputs: Arrays that nobody changes afterwards; the step may still be reading them.

        Returns:
          The cache, the next tokens int32 ``[R]``, and how many ids were out of range.
        """
        key = jax.tree.map(np.shape, (cache, inputs))
        if key not in self._programs:
            start = time.perf_counter()
            static = self.family, self.config, self.places
            lowered = _step.lower(*static, self.weights, cache, inputs)
            self._programs[key] = lowered.compile()
            self.compile_seconds += time.perf_counter() - start
        cache, next_tokens, num_dropped = self._programs[key](self.weights, cache, inputs)
        return cache, next_tokens, num_dropped


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnames="cache")
def _step(
    family: Family,
    config: ModelConfig,
    places: LayerPlaces,
    weights: Any,
    cache: KVPool,
    inputs: StepInputs,
) -> tuple[KVPool, jax.Array, jax.Array]:
    (cache, num_dropped), hidden = family.forward(
        config,
        weights,
        jnp.asarray(inputs.tokens),
        jnp.asarray(inputs.positions),
        store=(cache, jnp.int32(0)),
        attend=attend_pages(places, inputs),
    )
    last = hidden[inputs.query_starts[1:] - 1]
    next_tokens = jnp.argmax(family.logits(config, weights, last), axis=-1).astype(jnp.int32)
    return cache, next_tokens, num_dropped


def attend_pages(places: LayerPlaces, inputs: StepInputs) -> Attend[tuple[KVPool, jax.Array]]:
    """Returns the attention of a step whose K/V lives in pages.

    The store is the cache, and the count of ids that were out of range so far.
    """

    def attend(
        store: tuple[KVPool, jax.Array],
        layer: jax.Array,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
    ) -> tuple[tuple[KVPool, jax.Array], jax.Array]:
        cache, num_dropped = store
        group, tensor, window = places.at(layer)
        if not cache.is_quantized:
            key, value = key.astype(cache.dtype), value.astype(cache.dtype)
        cache, not_written = cache.write(tensor, key, value, inputs.slot_mapping[group])
        attended, not_read = cache.attend(
            tensor,
            query,
            inputs.page_table[group],
            inputs.query_starts,
            inputs.context_lens,
            sliding_window=window,
        )
        return (cache, num_dropped + not_written + not_read), attended

    return attend
