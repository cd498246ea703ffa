"""A llama model in plain JAX. It does not know how keys and values are stored.

Shapes use these letters: T tokens, D head_dim, H query heads, K key/value heads. Nothing here asks
which request a token belongs to; that is up to the attention.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

Store = TypeVar("Store")

# (store, layer, query [T, H, D], key [T, K, D], value [T, K, D])
#   -> (store that holds the new keys and values too, attended [T, H, D])
Attend = Callable[
    [Store, jax.Array, jax.Array, jax.Array, jax.Array],
    tuple[Store, jax.Array],
]


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a llama model."""

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_width: int
    vocab_size: int
    max_model_len: int
    rope_base: float
    rms_eps: float


class LayerWeights(NamedTuple):
    """Weights of all layers, stacked: each array has a leading axis of ``num_layers``.

    Matrices are ``[out, in]``, as GGUF files have them.
    """

    attention_norm: jax.Array  # [layers, width]
    qkv: jax.Array  # [layers, (H + 2 K) * D, width]
    attention_output: jax.Array  # [layers, width, H * D]
    ffn_norm: jax.Array  # [layers, width]
    gate_up: jax.Array  # [layers, 2 * ffn_width, width]
    ffn_down: jax.Array  # [layers, width, ffn_width]


class LlamaWeights(NamedTuple):
    embedding: jax.Array  # [vocab, width]
    layers: LayerWeights
    output_norm: jax.Array  # [width]
    output: jax.Array  # [vocab, width]; the embedding itself where the two are tied


def forward(
    config: LlamaConfig,
    weights: LlamaWeights,
    tokens: jax.Array,
    positions: jax.Array,
    store: Store,
    attend: Attend[Store],
) -> tuple[Store, jax.Array]:
    """Runs the layers over new tokens.

    The store is carried from layer to layer, which is what lets XLA update a donated one in place.

    Args:
      tokens: int32 ``[T]``.
      positions: int32 ``[T]``, the place of each token in its request.
      store: Any pytree that holds keys and values.
      attend: Adds the keys and values of one layer to the store and attends over what it holds.

    Returns:
      The store, and the hidden states ``[T, width]``.
    """
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim

    def layer_step(
        carry: tuple[Store, jax.Array], inputs: tuple[jax.Array, LayerWeights]
    ) -> tuple[tuple[Store, jax.Array], None]:
        store, hidden = carry
        layer, w = inputs

        projected = linear(rms_norm(hidden, w.attention_norm, config.rms_eps), w.qkv)
        projected = projected.reshape(-1, heads + 2 * kv_heads, dim)
        query, key, value = jnp.split(projected, [heads, heads + kv_heads], axis=1)
        query = rotate(query, positions, config.rope_base)
        key = rotate(key, positions, config.rope_base)
        store, attended = attend(store, layer, query, key, value)
        hidden += linear(attended.reshape(-1, heads * dim), w.attention_output)

        gate_up = linear(rms_norm(hidden, w.ffn_norm, config.rms_eps), w.gate_up)
        gate, up = jnp.split(gate_up, 2, axis=-1)
        hidden += linear(jax.nn.silu(gate) * up, w.ffn_down)
        return (store, hidden), None

    hidden = weights.embedding[tokens]
    layers = jnp.arange(config.num_layers, dtype=jnp.int32)
    (store, hidden), _ = jax.lax.scan(layer_step, (store, hidden), (layers, weights.layers))
    return store, hidden


def logits(config: LlamaConfig, weights: LlamaWeights, hidden: jax.Array) -> jax.Array:
    """Returns ``[..., vocab]`` for hidden states ``[..., width]``."""
    return linear(rms_norm(hidden, weights.output_norm, config.rms_eps), weights.output)


def linear(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.einsum("...i,oi->...o", x, weight)


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotary embedding of ``[T, heads, D]``: turns the pair (i, i + D/2) by a position's angle."""
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, None, None] * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def causal_attention(query: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Attention of a whole text over itself, with no cache: what any cache has to equal.

    Args:
      query: ``[T, H, D]``.
      keys, values: ``[T, K, D]``.

    Returns:
      ``[T, H, D]``.
    """
    length, kv_heads, dim = keys.shape
    grouped = query.reshape(length, kv_heads, -1, dim)
    scores = jnp.einsum("qkgd,skd->kgqs", grouped, keys) * dim**-0.5
    visible = jnp.tri(length, dtype=bool)
    probabilities = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return jnp.einsum("kgqs,skd->qkgd", probabilities, values).reshape(query.shape)
