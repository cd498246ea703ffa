"""Shapes of what layers with a recurrent state keep, by the fields of their family.

The shapes are those that Hugging Face's models keep, without the batch axis: a convolution keeps as
many inputs as its kernel is wide.
"""

from pagedkv._core import MambaSpec
from pagedkv.specs.fields import Fields

Shapes = tuple[tuple[int, ...], ...]


def state_spec(config: Fields, page_size: int, dtype: object) -> MambaSpec:
    """The spec of a layer with a recurrent state. All arrays have `dtype`, except that the config
    may name another for the recurrent one.

    Raises:
      ValueError: If the config lacks a field that its family needs.
    """
    shapes = _state_shapes(config)
    recurrent = config.first("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if recurrent is None or recurrent == "auto":
        return MambaSpec(page_size, shapes, dtype)
    return MambaSpec(page_size, shapes, (dtype,) * (len(shapes) - 1) + (recurrent,))


def conv_spec(config: Fields, page_size: int, dtype: object) -> MambaSpec:
    """The spec of a layer with a short convolution alone (LFM2)."""
    shape = (config.required_size("hidden_size"), config.required_size("conv_L_cache"))
    return MambaSpec(page_size, (shape,), dtype)


def _state_shapes(config: Fields) -> Shapes:
    if config.get("linear_num_value_heads") is not None:
        return _gated_delta(config)
    if config.first("linear_num_heads", "linear_attn_config") is not None:
        return _kimi_delta(config)
    if config.get("lru_width") is not None:
        return _recurrent_gemma(config)
    if str(config.get("model_type")).startswith("minimax"):
        return _lightning(config)
    if config.first("mamba_n_groups", "mamba_ngroups", "n_groups") is not None:
        return _mamba2(config)
    return _mamba(config)


def _gated_delta(config: Fields) -> Shapes:
    """Qwen3-Next, Qwen3.5, OlmoHybrid."""
    value_heads = config.required_size("linear_num_value_heads")
    key_size = config.required_size("linear_key_head_dim")
    value_size = config.required_size("linear_value_head_dim")
    keys = config.required_size("linear_num_key_heads") * key_size
    kernel = config.required_size("linear_conv_kernel_dim")
    return ((2 * keys + value_heads * value_size, kernel), (value_heads, key_size, value_size))


def _kimi_delta(config: Fields) -> Shapes:
    """Kimi Linear: queries, keys and values are of one size."""
    inner = config.get("linear_attn_config")
    fields = config if inner is None else Fields(inner)
    heads = fields.required_size("linear_num_heads", "num_heads")
    size = fields.required_size("linear_head_dim", "head_dim")
    kernel = fields.required_size("linear_conv_kernel_dim", "short_conv_kernel_size")
    return ((3 * heads * size, kernel), (heads, size, size))


def _recurrent_gemma(config: Fields) -> Shapes:
    """RecurrentGemma: the one family that keeps one input less than its kernel is wide."""
    width = config.required_size("lru_width")
    past = config.required_size("conv1d_width") - 1
    return ((width, past), (width,)) if past else ((width,),)


def _lightning(config: Fields) -> Shapes:
    """MiniMax: no convolution."""
    heads = config.required_size("num_attention_heads")
    size = config.size("head_dim") or config.required_size("hidden_size") // heads
    return ((heads, size, size),)


def _mamba2(config: Fields) -> Shapes:
    """Mamba2, Bamba, Granite hybrid, Nemotron-H, FalconH1, Zamba2."""
    heads = config.required_size("mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads")
    groups = config.required_size("mamba_n_groups", "mamba_ngroups", "n_groups")
    state = config.required_size("mamba_d_state", "ssm_state_size", "state_size")
    kernel = config.required_size("mamba_d_conv", "conv_kernel")
    if config.get("mamba_d_head") == "auto":
        size = _inner_size(config) // heads
    else:
        size = config.required_size("mamba_d_head", "mamba_head_dim", "mamba_headdim", "head_dim")
    return ((heads * size + 2 * groups * state, kernel), (heads, size, state))


def _mamba(config: Fields) -> Shapes:
    """Mamba, FalconMamba, Jamba, Zamba."""
    inner = _inner_size(config)
    state = config.required_size("mamba_d_state", "state_size")
    kernel = config.required_size("mamba_d_conv", "conv_kernel")
    return ((inner, kernel), (inner, state))


def _inner_size(config: Fields) -> int:
    expand = config.required_size("mamba_expand", "expand")
    return expand * config.required_size("hidden_size")
