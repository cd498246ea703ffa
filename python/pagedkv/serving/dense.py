"""A model without any cache: a whole text at once. What every cache has to equal."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .family import Family, ModelConfig
from .layers import causal_attention
from .paged_model import IntArray, PagedModel


def score(model: PagedModel, tokens: IntArray, length: int) -> jax.Array:
    """Returns the logits ``[n, vocab]`` after each of the tokens int32 ``[n]``.

    They are padded to ``length``, so that texts of many lengths need one program.
    """
    padded = np.zeros(length, np.int32)
    padded[: len(tokens)] = tokens
    logits: jax.Array = _score(model.family, model.config, model.weights, padded)
    return logits[: len(tokens)]


@partial(jax.jit, static_argnums=(0, 1))
def _score(family: Family, config: ModelConfig, weights: Any, tokens: jax.Array) -> jax.Array:
    length = len(tokens)
    windows = jnp.array([window or length for window in config.windows])

    def attend(
        store: None, layer: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array
    ) -> tuple[None, jax.Array]:
        return store, causal_attention(query, key, value, windows[layer])

    positions = jnp.arange(length, dtype=jnp.int32)
    _, hidden = family.forward(config, weights, tokens, positions, None, attend)
    logits: jax.Array = family.logits(config, weights, hidden)
    return logits
