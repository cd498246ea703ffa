"""The specs of one layer of a Hugging Face config, given its kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pagedkv._core import (
    ChunkedLocalAttentionSpec,
    CrossAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from pagedkv.specs.fields import Fields, checked_size, message, said
from pagedkv.specs.layer_kinds import LayerKind
from pagedkv.specs.states import conv_spec, state_spec

Spec = (
    FullAttentionSpec
    | SlidingWindowSpec
    | ChunkedLocalAttentionSpec
    | CrossAttentionSpec
    | MambaSpec
)

_FULL = (LayerKind.FULL, LayerKind.INDEXED, LayerKind.HYBRID)
_SLIDING = (LayerKind.SLIDING, LayerKind.HYBRID_SLIDING)
_WITH_STATE = (LayerKind.STATE, LayerKind.HYBRID, LayerKind.HYBRID_SLIDING)


@dataclass(frozen=True)
class Defaults:
    """What the caller says of all layers."""

    page_size: int
    num_kv_heads: int | None
    head_size: int | None
    dtype: object
    use_mla: bool


def specs_of_layer(
    config: Fields, index: int, kind: LayerKind, defaults: Defaults
) -> Iterator[tuple[str, Spec]]:
    """What layer `index` keeps, by name. A second cache of a layer adds to its name."""
    name = f"layer.{index}"
    fields = config.of_layer(index)
    size, dtype = defaults.page_size, defaults.dtype
    if kind is LayerKind.CROSS:
        yield name, CrossAttentionSpec(**_attention(fields, index, kind, defaults))
        return
    if kind in _FULL:
        yield name, FullAttentionSpec(**_attention(fields, index, kind, defaults))
    elif kind in _SLIDING:
        window = _window(fields, name, "sliding_window", "attention_window_size", "window_size")
        yield (
            name,
            SlidingWindowSpec(**_attention(fields, index, kind, defaults), sliding_window=window),
        )
    elif kind is LayerKind.CHUNKED:
        chunk = _window(fields, name, "attention_chunk_size")
        yield (
            name,
            ChunkedLocalAttentionSpec(
                **_attention(fields, index, kind, defaults), attention_chunk_size=chunk
            ),
        )
    elif kind is LayerKind.CONV:
        yield name, conv_spec(fields, size, dtype)
    if kind in _WITH_STATE:
        state_name = name if kind is LayerKind.STATE else f"{name}.state"
        yield state_name, state_spec(fields, size, dtype)
    if kind is LayerKind.INDEXED:
        index_size = fields.required_size("index_head_dim")
        yield f"{name}.indexer", FullAttentionSpec(size, 1, index_size, dtype, use_mla=True)
    if fields.get("is_encoder_decoder") is True:
        yield f"{name}.cross", CrossAttentionSpec(**_attention(fields, index, kind, defaults))


def _window(fields: Fields, name: str, *names: str) -> int:
    size = fields.size(*names)
    if size is None:
        raise ValueError(message(f"{name} needs {names[0]}, which the config has not"))
    return size


def _attention(fields: Fields, index: int, kind: LayerKind, defaults: Defaults) -> dict[str, Any]:
    """The arguments that all attention specs have."""
    arguments: dict[str, Any] = {"page_size": defaults.page_size, "dtype": defaults.dtype}
    rank = fields.size("kv_lora_rank")
    if rank is not None:
        latent = rank + fields.required_size("qk_rope_head_dim")
        return arguments | {"num_kv_heads": 1, "head_size": latent, "use_mla": True}
    arguments["num_kv_heads"] = _num_kv_heads(fields, index, kind, defaults)
    arguments["head_size"] = _head_size(fields, index, kind, defaults)
    if defaults.use_mla:
        return arguments | {"use_mla": True}
    names = ("swa_v_head_dim", "v_head_dim") if kind in _SLIDING else ("v_head_dim",)
    value_size = fields.size(*names)
    return arguments if value_size is None else arguments | {"head_size_v": value_size}


def _num_kv_heads(fields: Fields, index: int, kind: LayerKind, defaults: Defaults) -> int:
    if kind in _SLIDING and fields.get("swa_num_key_value_heads") is not None:
        return fields.required_size("swa_num_key_value_heads")
    if kind in _FULL and fields.get("attention_k_eq_v"):
        heads = fields.size("num_global_key_value_heads")
        if heads is not None:
            return heads
    if fields.get("multi_query") and not fields.get("new_decoder_architecture"):
        return 1  # Falcon
    heads = _of_layer(fields, index, "num_key_value_heads", "num_kv_heads")
    if heads is None:
        return said("num_key_value_heads", defaults.num_kv_heads)
    doubles = kind in _SLIDING and fields.get("model_type") == "mimo_v2_flash"
    return heads * 2 if doubles else heads


def _head_size(fields: Fields, index: int, kind: LayerKind, defaults: Defaults) -> int:
    own: tuple[str, ...] = ("global_head_dim",) if kind in _FULL else ()
    own = ("swa_head_dim",) if kind in _SLIDING else own
    size = fields.size(*own) if own else None
    size = size or _of_layer(fields, index, "head_dim", "d_kv")
    return said("head_dim", defaults.head_size) if size is None else size


def _of_layer(fields: Fields, index: int, *names: str) -> int | None:
    """A size that may be one for all layers or a list."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, (list, tuple)):
            if index >= len(value):
                raise ValueError(message(f"{name} has no item for layer.{index}"))
            value = value[index]
        if value is not None:
            return checked_size(name, value)
    return None
