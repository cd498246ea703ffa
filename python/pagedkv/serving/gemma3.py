"""The Gemma 3 family, text only: its sizes, its weights in a GGUF file, and what it computes.

Most of its layers see a window of tokens, and each sixth sees all. A GGUF file does not say which,
nor the rotary base of the others: both are constants of the family, here as in llama.cpp.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .family import Family
from .gguf_weights import Tensors
from .layers import Attend, Store, linear, rms_norm, rotate
from .model_files import ModelFile

LAYERS_TO_A_FULL_ONE = 6
LOCAL_ROPE_BASE = 10_000.0
# The one size that scales its queries by the width of a head in the residual stream, not by
# head_dim.
LAYERS_OF_27B = 62

# Field of LayerWeights -> the tensors of one layer it joins, one after the other by output row.
LAYER_TENSORS = {
    "attention_norm": ("attn_norm",),
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "query_norm": ("attn_q_norm",),
    "key_norm": ("attn_k_norm",),
    "attention_output": ("attn_output",),
    "post_attention_norm": ("post_attention_norm",),
    "ffn_norm": ("ffn_norm",),
    "gate_up": ("ffn_gate", "ffn_up"),
    "ffn_down": ("ffn_down",),
    "post_ffn_norm": ("post_ffw_norm",),
}


@dataclass(frozen=True)
class Gemma3Config:
    """The sizes of a Gemma 3 model."""

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_width: int
    vocab_size: int
    max_model_len: int
    sliding_window: int
    rope_base: float  # of the full layers
    rope_factor: float  # by which their positions are divided
    rms_eps: float

    @property
    def is_full(self) -> tuple[bool, ...]:
        return tuple((i + 1) % LAYERS_TO_A_FULL_ONE == 0 for i in range(self.num_layers))

    @property
    def windows(self) -> tuple[int | None, ...]:
        return tuple(None if is_full else self.sliding_window for is_full in self.is_full)

    @property
    def query_scale(self) -> float:
        """Factor of the scores."""
        is_27b = self.num_layers == LAYERS_OF_27B
        return 1 / math.sqrt(self.width // self.num_heads if is_27b else self.head_dim)


class LayerWeights(NamedTuple):
    """Weights of all layers, stacked: each array has a leading axis of ``num_layers``.

    Matrices are ``[out, in]``. Norms are factors: the 1 that Gemma adds to its own is in the file.
    H query heads, K kv heads, D head_dim.
    """

    attention_norm: jax.Array  # [layers, width]
    qkv: jax.Array  # [layers, (H + 2 K) * D, width]
    query_norm: jax.Array  # [layers, D]
    key_norm: jax.Array  # [layers, D]
    attention_output: jax.Array  # [layers, width, H * D]
    post_attention_norm: jax.Array  # [layers, width]
    ffn_norm: jax.Array  # [layers, width]
    gate_up: jax.Array  # [layers, 2 * ffn_width, width]
    ffn_down: jax.Array  # [layers, width, ffn_width]
    post_ffn_norm: jax.Array  # [layers, width]


class Gemma3Weights(NamedTuple):
    embedding: jax.Array  # [vocab, width]; also the output matrix
    layers: LayerWeights
    output_norm: jax.Array  # [width]


def load_config(file: ModelFile) -> Gemma3Config:
    """Reads the sizes of the model.

    Raises:
      ModelFileError: If a size is missing.
    """
    return Gemma3Config(
        num_layers=file.require("gemma3.block_count"),
        width=file.require("gemma3.embedding_length"),
        num_heads=file.require("gemma3.attention.head_count"),
        num_kv_heads=file.require("gemma3.attention.head_count_kv"),
        head_dim=file.require("gemma3.attention.key_length"),
        ffn_width=file.require("gemma3.feed_forward_length"),
        vocab_size=len(file.require("tokenizer.ggml.tokens")),
        max_model_len=file.require("gemma3.context_length"),
        sliding_window=file.require("gemma3.attention.sliding_window"),
        rope_base=file.metadata.get("gemma3.rope.freq_base", 1_000_000.0),
        rope_factor=file.metadata.get("gemma3.rope.scaling.factor", 1.0),
        rms_eps=file.require("gemma3.attention.layer_norm_rms_epsilon"),
    )


def load_weights(file: ModelFile, config: Gemma3Config) -> Gemma3Weights:
    """Dequantises every tensor to f32 and stacks the layers for ``lax.scan``.

    Raises:
      ModelFileError: If a tensor is missing, or one is there that Gemma 3 has no use for.
    """
    tensors = Tensors(file)
    weights = Gemma3Weights(
        embedding=jnp.asarray(tensors.take("token_embd")),
        layers=LayerWeights(**tensors.take_layers(config.num_layers, LAYER_TENSORS)),
        output_norm=jnp.asarray(tensors.take("output_norm")),
    )
    tensors.require_empty("gemma3")
    return weights


def forward(
    config: Gemma3Config,
    weights: Gemma3Weights,
    tokens: jax.Array,
    positions: jax.Array,
    store: Store,
    attend: Attend[Store],
) -> tuple[Store, jax.Array]:
    """Runs the layers over new tokens: see `llama.forward`, which has the same arguments.

    One scan serves both kinds of layers: they differ in numbers alone.
    """
    heads, kv_heads, dim, eps = (
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
        config.rms_eps,
    )
    is_full = jnp.array(config.is_full)
    rope_bases = jnp.where(is_full, config.rope_base, LOCAL_ROPE_BASE)
    rope_factors = jnp.where(is_full, config.rope_factor, 1.0)
    query_factor = config.query_scale * math.sqrt(dim)  # the attention divides by the root

    def layer_step(
        carry: tuple[Store, jax.Array],
        inputs: tuple[jax.Array, jax.Array, jax.Array, LayerWeights],
    ) -> tuple[tuple[Store, jax.Array], None]:
        store, hidden = carry
        layer, rope_base, rope_factor, w = inputs

        projected = linear(rms_norm(hidden, w.attention_norm, eps), w.qkv)
        projected = projected.reshape(-1, heads + 2 * kv_heads, dim)
        query, key, value = jnp.split(projected, [heads, heads + kv_heads], axis=1)
        places = positions / rope_factor
        query = rotate(rms_norm(query, w.query_norm * query_factor, eps), places, rope_base)
        key = rotate(rms_norm(key, w.key_norm, eps), places, rope_base)
        store, attended = attend(store, layer, query, key, value)
        mixed = linear(attended.reshape(-1, heads * dim), w.attention_output)
        hidden += rms_norm(mixed, w.post_attention_norm, eps)

        gate_up = linear(rms_norm(hidden, w.ffn_norm, eps), w.gate_up)
        gate, up = jnp.split(gate_up, 2, axis=-1)
        fed = linear(jax.nn.gelu(gate, approximate=True) * up, w.ffn_down)
        hidden += rms_norm(fed, w.post_ffn_norm, eps)
        return (store, hidden), None

    hidden = weights.embedding[tokens] * math.sqrt(config.width)
    layers = jnp.arange(config.num_layers, dtype=jnp.int32)
    per_layer = (layers, rope_bases, rope_factors, weights.layers)
    (store, hidden), _ = jax.lax.scan(layer_step, (store, hidden), per_layer)
    return store, hidden


def logits(config: Gemma3Config, weights: Gemma3Weights, hidden: jax.Array) -> jax.Array:
    """Returns ``[..., vocab]`` for hidden states ``[..., width]``."""
    return linear(rms_norm(hidden, weights.output_norm, config.rms_eps), weights.embedding)


FAMILY = Family(load_config, load_weights, forward, logits)
