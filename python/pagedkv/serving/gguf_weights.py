"""Reads a llama model out of a GGUF file: its configuration, and its weights as f32 arrays."""

from typing import Any

import gguf
import jax.numpy as jnp
import numpy as np

from .llama import LayerWeights, LlamaConfig, LlamaWeights
from .model_files import ModelFile, ModelFileError

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

# Field of LayerWeights -> the tensors of one layer it joins, one after the other by output row.
LAYER_TENSORS = {
    "attention_norm": ("attn_norm",),
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "attention_output": ("attn_output",),
    "ffn_norm": ("ffn_norm",),
    "gate_up": ("ffn_gate", "ffn_up"),
    "ffn_down": ("ffn_down",),
}


def load_config(file: ModelFile) -> LlamaConfig:
    """Reads the sizes of the model.

    Raises:
      ModelFileError: If the architecture is not llama, or a size is missing.
    """
    architecture = file.require("general.architecture")
    if architecture != "llama":
        raise ModelFileError(
            f"[load_config] {file.path} is a {architecture!r} model: only 'llama' is supported"
        )
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
    tensors = {tensor.name: tensor for tensor in file.tensors}

    def read(name: str) -> FloatArray:
        if name not in tensors:
            raise ModelFileError(f"[load_weights] {file.path} has no tensor {name!r}")
        tensor = tensors.pop(name)
        return gguf.dequantize(tensor.data, tensor.tensor_type)

    def read_layer(layer: int, name: str) -> FloatArray:
        rows = read(f"blk.{layer}.{name}.weight")
        heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
        return unpermute_rope_rows(rows, heads[name]) if name in heads else rows

    def stack_layers(names: tuple[str, ...]) -> FloatArray:
        layers = range(config.num_layers)
        return np.stack([np.concatenate([read_layer(i, name) for name in names]) for i in layers])

    embedding = jnp.asarray(read("token_embd.weight"))
    weights = LlamaWeights(
        embedding=embedding,
        layers=LayerWeights(
            **{field: jnp.asarray(stack_layers(names)) for field, names in LAYER_TENSORS.items()}
        ),
        output_norm=jnp.asarray(read("output_norm.weight")),
        output=jnp.asarray(read("output.weight")) if "output.weight" in tensors else embedding,
    )
    if tensors:
        raise ModelFileError(
            f"[load_weights] {file.path} has a tensor {min(tensors)!r}: a plain llama has none"
        )
    return weights


def unpermute_rope_rows(rows: FloatArray, num_heads: int) -> FloatArray:
    """Puts the query or key rows of each head back from (x0 y0 x1 y1 ...) to (x0 x1 ... y0 y1 ...).

    llama GGUFs interleave the two halves that rotary embeddings rotate together;
    ``llama.rotate`` wants them apart.
    """
    pairs = rows.reshape(num_heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
