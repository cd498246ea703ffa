"""Specs from a config that describes its layers' masks itself, as EasyDeL's configs do.

`config.get_mask_details()` gives, by layer index, an object with `mask_type` (an enum or a str),
`size` (the window) and `chunks` (the chunk size); None means full attention everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pagedkv._core import (
    CacheGroupSpec,
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    SlidingWindowSpec,
)

_Key = tuple[str, int | None, int | None, int, int]


def groups_from_mask_details(
    config: Any,
    details: Mapping[int, Any] | None,
    *,
    page_size: int,
    num_kv_heads: int,
    head_size: int,
    dtype: object,
    use_mla: bool,
) -> list[CacheGroupSpec]:
    """The groups in the order of their first layers, named as EasyDeL names them."""
    if not details:
        spec = FullAttentionSpec(page_size, num_kv_heads, head_size, dtype, use_mla)
        return [CacheGroupSpec(spec)]
    layers: dict[_Key, list[str]] = {}
    for index, detail in details.items():
        heads, size = _geometry(config, int(index), num_kv_heads, head_size)
        key = (_mask_name(detail.mask_type), detail.size, detail.chunks, heads, size)
        layers.setdefault(key, []).append(f"layer.{int(index)}")
    return [
        CacheGroupSpec(_spec_of(key, names, page_size, dtype, use_mla), names)
        for key, names in layers.items()
    ]


def _mask_name(mask_type: Any) -> str:
    """`"FULL"` of an enum's value `"ATTN_MASK_FULL"`, or of the str alone."""
    return str(getattr(mask_type, "value", mask_type)).removeprefix("ATTN_MASK_").upper()


def _spec_of(
    key: _Key, names: list[str], page_size: int, dtype: object, use_mla: bool
) -> FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec:
    mask, window, chunk, heads, size = key
    if mask == "FULL":
        return FullAttentionSpec(page_size, heads, size, dtype, use_mla)
    if mask == "SLIDING":
        if window is None:
            raise ValueError(_message(f"sliding attention without a window size: {names}"))
        return SlidingWindowSpec(page_size, heads, size, dtype, sliding_window=window)
    if mask == "CHUNK":
        if chunk is None:
            raise ValueError(_message(f"chunked attention without a chunk size: {names}"))
        return ChunkedLocalAttentionSpec(
            page_size, heads, size, dtype, use_mla, attention_chunk_size=chunk
        )
    raise ValueError(_message(f"unknown attention mask type {mask!r} of {names}"))


def _message(text: str) -> str:
    return f"[create_kv_cache_specs_from_config] {text}"


def _geometry(config: Any, index: int, num_kv_heads: int, head_size: int) -> tuple[int, int]:
    """Heads and head size of a layer; full attention's may be others, as in Gemma 4."""
    heads = _positive(config, "num_kv_heads", index) or _positive(
        config, "num_key_value_heads", index
    )
    heads = heads or int(num_kv_heads)
    size = int(head_size)
    layer_types = getattr(config, "layer_types", None)
    if not isinstance(layer_types, (list, tuple)) or not 0 <= index < len(layer_types):
        return heads, size
    if str(layer_types[index]).lower() == "full_attention":
        size = _positive_scalar(config, "global_head_dim") or size
        if getattr(config, "attention_k_eq_v", False):
            heads = _positive_scalar(config, "num_global_key_value_heads") or heads
    return heads, size


def _positive_scalar(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return int(value) if value is not None and int(value) > 0 else None


def _positive(config: Any, name: str, index: int) -> int | None:
    """The field `name` of a layer if it is a positive integer; it may be one for each layer."""
    value = getattr(config, name, None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[index] if 0 <= index < len(value) else None
    try:
        number = int(value) if value is not None else 0
    except (TypeError, ValueError):
        return None
    return number if number > 0 else None
