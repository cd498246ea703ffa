"""The llama family: its sizes, its weights in a GGUF file, and what it computes."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .family import Family
from .gguf_weights import FloatArray, Tensors
from .layers import Attend, Store, linear, rms_norm, rotate
from .model_files import ModelFile

# Field of LayerWeights -> the tensors of one layer it joins, one after the other by output row.
LAYER_TENSORS = {
    "attention_norm": ("attn_norm",),
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "attention_output": ("attn_output",),
    "ffn_norm": ("ffn_norm",),
    "gate_up": ("ffn_gate", "ffn_up"),
    "ffn_down": ("ffn_down",),
}


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

    @property
    def windows(self) -> tuple[int | None, ...]:
        return (None,) * self.num_layers


class LayerWeights(NamedTuple):
    """Weights of all layers, stacked: each array has a leading axis of ``num_layers``.

    Matrices are ``[out, in]``, as GGUF files have them. H query heads, K kv heads, D head_dim.
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


def load_config(file: ModelFile) -> LlamaConfig:
    """Reads the sizes of the model.

    Raises:
      ModelFileError: If a size is missing.
    """
    width = file.require("llama.embedding_length")
    num_heads = file.require("llama.attention.head_count")
    return LlamaConfig(
        num_layers=file.require("llama.block_count"),
        width=width,
        num_heads=num_heads,
        num_kv_heads=file.metadata.get("llama.attention.head_count_kv", num_heads),
        head_dim=file.metadata.get("llama.attention.key_length", width // num_heads),
        ffn_width=file.require("llama.feed_forward_length"),
        vocab_size=len(file.require("tokenizer.ggml.tokens")),
        max_model_len=file.require("llama.context_length"),
        rope_base=file.metadata.get("llama.rope.freq_base", 10_000.0),
        rms_eps=file.require("llama.attention.layer_norm_rms_epsilon"),
    )


def load_weights(file: ModelFile, config: LlamaConfig) -> LlamaWeights:
    """Dequantises every tensor to f32 and stacks the layers for ``lax.scan``.

    Raises:
      ModelFileError: If a tensor is missing, or one is there that a plain llama has no use for.
    """
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}

    def unpermute(name: str, rows: FloatArray) -> FloatArray:
        return unpermute_rope_rows(rows, heads[name]) if name in heads else rows

    tensors = Tensors(file)
    embedding = jnp.asarray(tensors.take("token_embd"))
    weights = LlamaWeights(
        embedding=embedding,
        layers=LayerWeights(**tensors.take_layers(config.num_layers, LAYER_TENSORS, unpermute)),
        output_norm=jnp.asarray(tensors.take("output_norm")),
        output=jnp.asarray(tensors.take("output")) if "output" in tensors else embedding,
    )
    tensors.require_empty("llama")
    return weights


def unpermute_rope_rows(rows: FloatArray, num_heads: int) -> FloatArray:
    """Puts the query or key rows of each head back from (x0 y0 x1 y1 ...) to (x0 x1 ... y0 y1 ...).

    llama GGUFs interleave the two halves that rotary embeddings rotate together;
    ``layers.rotate`` wants them apart.
    """
    pairs = rows.reshape(num_heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


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


FAMILY = Family(load_config, load_weights, forward, logits)
