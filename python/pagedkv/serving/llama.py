"""A llama model in plain JAX. It does not know how keys and values are stored.

Shapes use these letters: B requests, Q tokens of each in this step, D head_dim, H query heads,
K key/value heads, S tokens of context.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

Store = TypeVar("Store")

# (store, layer, query [B, Q, H, D], key [B, Q, K, D], value [B, Q, K, D])
#   -> (store that holds the new keys and values too, attended [B, Q, H, D])
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
      tokens: int32 ``[B, Q]``.
      positions: int32 ``[B, Q]``, the place of each token in its request.
      store: Any pytree that holds keys and values.
      attend: Adds the keys and values of one layer to the store and attends over what it holds.

    Returns:
      The store, and the hidden states ``[B, Q, width]``.
    """
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim

    def layer_step(
        carry: tuple[Store, jax.Array], inputs: tuple[jax.Array, LayerWeights]
    ) -> tuple[tuple[Store, jax.Array], None]:
        store, hidden = carry
        layer, w = inputs

        projected = linear(rms_norm(hidden, w.attention_norm, config.rms_eps), w.qkv)
        projected = projected.reshape(*tokens.shape, heads + 2 * kv_heads, dim)
        query, key, value = jnp.split(projected, [heads, heads + kv_heads], axis=2)
        query = rotate(query, positions, config.rope_base)
        key = rotate(key, positions, config.rope_base)
        store, attended = attend(store, layer, query, key, value)
        hidden += linear(attended.reshape(*tokens.shape, heads * dim), w.attention_output)

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
    """Rotary embedding of ``[B, Q, heads, D]``: turns the pair (i, i + D/2) by a position's angle."""
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None] * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention(
    query: jax.Array, keys: jax.Array, values: jax.Array, positions: jax.Array
) -> jax.Array:
    """Causal attention of new tokens over the context rows of their own request.

    Rows past a request's last token may hold anything, NaN too: the mask cuts them from the scores,
    and from the values, where a weight of zero alone would let a NaN through.

    Args:
      query: ``[B, Q, H, D]``.
      keys, values: ``[B, S, K, D]``; row ``s`` belongs to position ``s``.
      positions: int32 ``[B, Q]``.

    Returns:
      ``[B, Q, H, D]``.
    """
    batch, length, heads, dim = query.shape
    kv_heads = keys.shape[2]
    context = jnp.arange(keys.shape[1])
    visible = context <= positions[..., None]  # [B, Q, S]
    in_use = jnp.any(visible, axis=1)[..., None, None]  # [B, S, 1, 1]

    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, dim)
    scores = jnp.einsum("bqkgd,bskd->bkgqs", grouped, keys) * dim**-0.5
    scores = jnp.where(visible[:, None, None], scores, -jnp.inf)
    probabilities = jax.nn.softmax(scores, axis=-1)
    attended = jnp.einsum("bkgqs,bskd->bqkgd", probabilities, jnp.where(in_use, values, 0))
    return attended.reshape(query.shape)
