"""Which kind of cache each layer of a Hugging Face config has.

Newer configs say it in `layer_types`. Older ones each have a way of their own: one function below
for each, tried in order.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any

from pagedkv.specs.fields import Fields, message


class LayerKind(Enum):
    """What a layer keeps."""

    FULL = "full"  # K/V of all tokens
    SLIDING = "sliding"  # K/V of a window
    CHUNKED = "chunked"  # K/V of the current chunk
    INDEXED = "indexed"  # K/V of all tokens, and keys of the indexer that picks among them
    CROSS = "cross"  # K/V of an encoder's tokens
    STATE = "state"  # a recurrent state, and that of a short convolution
    CONV = "conv"  # the state of a short convolution
    HYBRID = "hybrid"  # FULL and STATE
    HYBRID_SLIDING = "hybrid_sliding"  # SLIDING and STATE
    NOTHING = "nothing"  # no attention, or another layer's K/V


_KIND_OF_NAME = {
    "full_attention": LayerKind.FULL,
    "attention": LayerKind.FULL,
    "global": LayerKind.FULL,
    "sliding_attention": LayerKind.SLIDING,
    "window_attention": LayerKind.SLIDING,
    "reference_sliding_attention": LayerKind.SLIDING,
    "local": LayerKind.SLIDING,
    "chunked_attention": LayerKind.CHUNKED,
    "chunk_attention": LayerKind.CHUNKED,
    "indexed_attention": LayerKind.INDEXED,
    "minimax_m3_sparse": LayerKind.INDEXED,
    "linear_attention": LayerKind.STATE,
    "kda_linear_attention": LayerKind.STATE,
    "mamba": LayerKind.STATE,
    "mamba2": LayerKind.STATE,
    "recurrent": LayerKind.STATE,
    "conv": LayerKind.CONV,
    "hybrid": LayerKind.HYBRID,
    "parallel_hybrid": LayerKind.HYBRID,
    "hybrid_sliding": LayerKind.HYBRID_SLIDING,
    "moe": LayerKind.NOTHING,
    "mlp": LayerKind.NOTHING,
}

# DeepSeek V4: rows for several tokens each, which no spec describes.
_UNSUPPORTED = ("compressed_sparse_attention", "heavily_compressed_attention")

# Every n-th layer is full, where a config of the family's does not say.
_PATTERN_OF_FAMILY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
_STATE_FAMILIES = ("mamba", "mamba2", "falcon_mamba")


def layer_kinds(config: Fields, num_layers: int) -> list[LayerKind]:
    """The kind of each layer. Layers that use another one's K/V keep nothing.

    Raises:
      ValueError: If a layer type is unknown, or a list is shorter than the layers.
    """
    found = (way(config, num_layers) for way in _WAYS)
    kinds = next((kinds for kinds in found if kinds is not None), [LayerKind.FULL] * num_layers)
    num_shared = config.get("num_kv_shared_layers") or 0
    first_shared = num_layers - num_shared
    return [kind if i < first_shared else LayerKind.NOTHING for i, kind in enumerate(kinds)]


def _kind_of(name: Any, index: int) -> LayerKind:
    if name in _UNSUPPORTED:
        raise ValueError(message(f"layer type {name!r} of layer.{index} is not supported"))
    kind = _KIND_OF_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(
            message(
                f"layer type {name!r} of layer.{index} is unknown, must be one of "
                + ", ".join(sorted(_KIND_OF_NAME))
            )
        )
    return kind


def _checked(items: list[Any], name: str, num_layers: int) -> list[Any]:
    if len(items) < num_layers:
        raise ValueError(
            message(f"{name} must have an item for each of {num_layers} layers, got {len(items)}")
        )
    return items[:num_layers]


def _chosen(
    num_layers: int, is_other: Callable[[int], bool], other: LayerKind, most: LayerKind
) -> list[LayerKind]:
    return [other if is_other(i) else most for i in range(num_layers)]


def _from_names(config: Fields, num_layers: int) -> list[LayerKind] | None:
    for field in ("layer_types", "layers_block_type", "attention_layers"):
        names = config.sequence(field)
        if names is not None:
            names = _checked(names, field, num_layers)
            return [_kind_of(name, i) for i, name in enumerate(names)]
    return None


def _from_letters(config: Fields, num_layers: int) -> list[LayerKind] | None:
    """Nemotron-H: Mamba, attention (*), MLP (-), experts (E)."""
    pattern = config.get("hybrid_override_pattern")
    if not pattern:
        return None
    names = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
    letters = _checked(list(pattern), "hybrid_override_pattern", num_layers)
    return [_kind_of(names.get(letter, letter), i) for i, letter in enumerate(letters)]


def _from_cycle(config: Fields, num_layers: int) -> list[LayerKind] | None:
    """RecurrentGemma: names that repeat; its attention has a window."""
    names = config.sequence("block_types")
    if names is None:
        return None
    kinds = [_kind_of(names[i % len(names)], i) for i in range(num_layers)]
    return [LayerKind.SLIDING if kind is LayerKind.FULL else kind for kind in kinds]


def _from_flags(config: Fields, num_layers: int) -> list[LayerKind] | None:
    """MiniMax: 1 is attention, 0 lightning attention. MiMo: 1 is a window, 0 full attention."""
    for field, one, zero in (
        ("attn_type_list", LayerKind.FULL, LayerKind.STATE),
        ("hybrid_layer_pattern", LayerKind.SLIDING, LayerKind.FULL),
    ):
        flags = config.sequence(field)
        if flags is not None:
            flags = _checked(flags, field, num_layers)
            return [one if flag else zero for flag in flags]
    return None


def _from_indices(config: Fields, num_layers: int) -> list[LayerKind] | None:
    """Lists of the layers that are not like most."""
    for field, other, most in (
        ("full_attn_idxs", LayerKind.FULL, LayerKind.CONV),  # LFM2
        ("attn_layer_indices", LayerKind.FULL, LayerKind.STATE),  # Bamba
        ("hybrid_layer_ids", LayerKind.HYBRID, LayerKind.STATE),  # Zamba2
        ("cross_attention_layers", LayerKind.CROSS, LayerKind.FULL),  # Llama 3.2 Vision
    ):
        indices = config.sequence(field)
        if indices is not None:
            return _chosen(num_layers, indices.__contains__, other, most)
    linear = config.get("linear_attn_config")
    if linear is None:
        return None
    full = Fields(linear).sequence("full_attn_layers") or []  # Kimi Linear counts from 1
    return _chosen(num_layers, lambda i: i + 1 in full, LayerKind.FULL, LayerKind.STATE)


def _from_period(config: Fields, num_layers: int) -> list[LayerKind] | None:
    """Jamba, Zamba and Qwen3-Next: every n-th layer has attention."""
    period = config.size("attn_layer_period")
    if period is not None:
        offset = config.get("attn_layer_offset") or 0
        other = LayerKind.HYBRID if config.get("model_type") == "zamba" else LayerKind.FULL
        return _chosen(num_layers, lambda i: i % period == offset, other, LayerKind.STATE)
    interval = config.size("full_attention_interval")
    if interval is not None:
        return _chosen(
            num_layers, lambda i: (i + 1) % interval == 0, LayerKind.FULL, LayerKind.STATE
        )
    return None


def _from_family(config: Fields, num_layers: int) -> list[LayerKind] | None:
    """Families whose layers are all of a kind that no field names."""
    if config.get("model_type") in _STATE_FAMILIES:
        return [LayerKind.STATE] * num_layers
    if config.get("mamba_d_ssm") is not None:  # FalconH1
        return [LayerKind.HYBRID] * num_layers
    if config.get("mamba_d_state") is not None:  # Bamba, without any attention
        return [LayerKind.STATE] * num_layers
    return None


def _from_chunks(config: Fields, num_layers: int) -> list[LayerKind] | None:
    """Llama 4: layers with rotary positions are chunked, by default three of four."""
    if config.get("attention_chunk_size") is None:
        return None
    has_rope = config.sequence("no_rope_layers")  # 1 where the layer does have rotary positions
    if has_rope is not None:
        has_rope = _checked(has_rope, "no_rope_layers", num_layers)
        return [LayerKind.CHUNKED if flag else LayerKind.FULL for flag in has_rope]
    interval = config.size("no_rope_layer_interval")
    if interval is None:
        return [LayerKind.CHUNKED] * num_layers
    return _chosen(num_layers, lambda i: (i + 1) % interval == 0, LayerKind.FULL, LayerKind.CHUNKED)


def _from_window(config: Fields, num_layers: int) -> list[LayerKind] | None:
    """A window for all layers, for all but every n-th, or for those from `max_window_layers` on."""
    if config.get("sliding_window") is None or config.get("use_sliding_window") is False:
        return None
    family = _PATTERN_OF_FAMILY.get(str(config.get("model_type")))
    pattern = config.first("sliding_window_pattern", "global_attn_every_n_layers") or family
    if isinstance(pattern, str):  # such as "LLLG"
        return _chosen(
            num_layers,
            lambda i: pattern[i % len(pattern)] == "G",
            LayerKind.FULL,
            LayerKind.SLIDING,
        )
    if pattern is not None:
        return _chosen(
            num_layers, lambda i: (i + 1) % pattern == 0, LayerKind.FULL, LayerKind.SLIDING
        )
    first = config.get("max_window_layers") or 0
    return _chosen(num_layers, lambda i: i < first, LayerKind.FULL, LayerKind.SLIDING)


_WAYS = (
    _from_names,
    _from_letters,
    _from_cycle,
    _from_flags,
    _from_indices,
    _from_period,
    _from_family,
    _from_chunks,
    _from_window,
)
