"""What decoders have in common, in plain JAX. No model knows how keys and values are stored.

Shapes use these letters: T tokens, D head_dim, H query heads, K key/value heads. Nothing here asks
which request a token belongs to; that is up to the attention.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Store = TypeVar("Store")

# (store, layer, query [T, H, D], key [T, K, D], value [T, K, D])
#   -> (store that holds the new keys and values too, attended [T, H, D])
# Scores are scaled by D ** -0.5. Which layers have a window, the attention knows.
Attend = Callable[
    [Store, jax.Array, jax.Array, jax.Array, jax.Array],
    tuple[Store, jax.Array],
]


def linear(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.einsum("...i,oi->...o", x, weight)


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x: jax.Array, positions: jax.Array, base: float | jax.Array) -> jax.Array:
    """Rotary embedding of ``[T, heads, D]``: turns the pair (i, i + D/2) by a position's angle."""
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, None, None] * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def causal_attention(
    query: jax.Array, keys: jax.Array, values: jax.Array, window: int | jax.Array
) -> jax.Array:
    """Attention of a whole text over itself, with no cache: what any cache has to equal.

    Args:
      query: ``[T, H, D]``.
      keys, values: ``[T, K, D]``.
      window: How many tokens each sees, itself among them.

    Returns:
      ``[T, H, D]``.
    """
    length, kv_heads, dim = keys.shape
    grouped = query.reshape(length, kv_heads, -1, dim)
    scores = jnp.einsum("qkgd,skd->kgqs", grouped, keys) * dim**-0.5
    age = jnp.arange(length)[:, None] - jnp.arange(length)
    visible = (age >= 0) & (age < window)
    probabilities = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return jnp.einsum("kgqs,skd->qkgd", probabilities, values).reshape(query.shape)
