"""What the planner reads of a model's config."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagedkv._core import CrossAttentionSpec, FullAttentionSpec, MambaSpec
from pagedkv.specs.fields import Fields, text_fields
from pagedkv.specs.from_config import create_kv_cache_specs_from_config
from pagedkv.specs.layer_specs import Spec

DEFAULT_DTYPE = "bfloat16"
MAX_LAYERS = 10_000
_SHORT_DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "fp8": "float8_e4m3fn",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}
_LENGTHS = (
    "max_position_embeddings",
    "max_target_positions",
    "n_positions",
    "seq_length",
    "max_seq_len",
    "max_sequence_length",
)


@dataclass(frozen=True)
class CachedLayer:
    """One thing that a layer keeps, on all devices together."""

    name: str
    spec: Spec


@dataclass(frozen=True)
class Model:
    """What a config says.

    Attributes:
      name: Its ``model_type``, or "model".
      layers: What layers keep. One may keep two things, or nothing.
      dtype: Of K/V, by its full name.
      max_model_len: Longest request that it was made for, or None.
      max_encoder_tokens: The same of an encoder's input.
      num_state_groups: Groups of Mamba 2, or None.
    """

    name: str
    layers: tuple[CachedLayer, ...]
    dtype: str
    max_model_len: int | None
    max_encoder_tokens: int | None
    num_state_groups: int | None

    @property
    def num_layers(self) -> int:
        """Layers that keep something."""
        return len({_layer_of(layer.name) for layer in self.layers})


def load_config(path: str | Path) -> dict[str, Any]:
    """The config in a file, or in the ``config.json`` of a folder.

    Raises:
      OSError: If there is none.
      ValueError: If it is no JSON; says line and column.
      TypeError: If it is no JSON object.
    """
    file = Path(path)
    if file.is_dir():
        file /= "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"[plan_memory] {file} is no JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"[plan_memory] {file} is no JSON: it is not UTF-8") from None
    except RecursionError:
        raise ValueError(f"[plan_memory] {file} is no config: it is nested too deep") from None
    if not isinstance(config, dict):
        raise TypeError(f"[plan_memory] {file} must hold a JSON object, got {str(config)[:40]!r}")
    return config


def read_model(config: Any, page_size: int, dtype: object) -> Model:
    """Reads a config: a dict or an object, as `create_kv_cache_specs_from_config` takes it.

    Args:
      config: Of Hugging Face, or with ``get_mask_details()``.
      page_size: Tokens of a page.
      dtype: Of K/V, also by a short name such as "bf16" or "fp8"; None or "auto" for the config's.
        States of recurrent layers keep the config's.

    Raises:
      ValueError: If a field is missing or out of range.
      TypeError: If a field is of another type.
    """
    fields = text_fields(config)
    own_dtype = _dtype_name(fields.first("torch_dtype", "dtype"), DEFAULT_DTYPE)
    kv_dtype = _dtype_name(dtype, own_dtype)
    if (fields.size("num_hidden_layers", "num_layers", "n_layer", "n_layers") or 0) > MAX_LAYERS:
        raise ValueError(f"[plan_memory] num_hidden_layers must be at most {MAX_LAYERS}")
    head_size = _head_size(fields)
    if hasattr(config, "get_mask_details"):  # of these, the caller's head size counts
        head_size = fields.size("head_dim") or head_size
    sizes = (page_size, _num_kv_heads(fields), head_size)
    layers = _layers(create_kv_cache_specs_from_config(config, *sizes, kv_dtype), fields)
    if any(isinstance(layer.spec, MambaSpec) for layer in layers) and kv_dtype != own_dtype:
        own = _layers(create_kv_cache_specs_from_config(config, *sizes, own_dtype), fields)
        states = {layer.name: layer for layer in own if isinstance(layer.spec, MambaSpec)}
        layers = [states.get(layer.name, layer) for layer in layers]
    has_cross = any(isinstance(layer.spec, CrossAttentionSpec) for layer in layers)
    return Model(
        name=str(Fields(config).get("model_type") or fields.get("model_type") or "model"),
        layers=tuple(layers),
        dtype=kv_dtype,
        max_model_len=fields.size(*_LENGTHS),
        max_encoder_tokens=fields.size("max_source_positions") if has_cross else 0,
        num_state_groups=_num_state_groups(fields),
    )


def _layers(groups: Any, fields: Fields) -> list[CachedLayer]:
    """In the order of the model."""
    layers = []
    for group in groups:
        names = group.layer_names
        if names is None:  # one group of all layers
            names = [f"layer.{i}" for i in range(fields.required_size("num_hidden_layers"))]
        layers += [CachedLayer(name, group.kv_cache_spec) for name in names]
    return sorted(layers, key=lambda layer: _layer_of(layer.name))


def _layer_of(name: str) -> int:
    return int(name.split(".")[1])


def _num_kv_heads(fields: Fields) -> int | None:
    return fields.size(*_attention_heads(fields))


def _head_size(fields: Fields) -> int | None:
    num_heads = fields.size(*_attention_heads(fields))
    width = fields.size("hidden_size", "n_embd", "d_model", "model_dim")
    return width // num_heads if num_heads and width and width >= num_heads else None


def _attention_heads(fields: Fields) -> tuple[str, ...]:
    names = ("num_attention_heads", "n_head", "n_heads")
    if fields.get("is_encoder_decoder") is True:
        return ("decoder_attention_heads", *names, "num_heads")
    return names


def _num_state_groups(fields: Fields) -> int | None:
    """None where the state is not Mamba 2's."""
    if fields.first("linear_num_value_heads", "linear_num_heads", "linear_attn_config") is not None:
        return None
    if fields.get("lru_width") is not None or str(fields.get("model_type")).startswith("minimax"):
        return None
    return fields.size("mamba_n_groups", "mamba_ngroups", "n_groups")


def _dtype_name(dtype: object, default: str) -> str:
    """The full name of a dtype, or of what a short name stands for."""
    if dtype is None or (isinstance(dtype, str) and dtype == "auto"):
        return default
    if isinstance(dtype, str) or str(dtype).startswith("torch."):
        dtype = str(dtype).removeprefix("torch.").lower()
        dtype = _SHORT_DTYPES.get(dtype, dtype)
    return FullAttentionSpec(2, 1, 8, dtype).dtype
