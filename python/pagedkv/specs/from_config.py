"""`create_kv_cache_specs_from_config`: from a model's config to its cache groups."""

from typing import Any

from pagedkv._core import CacheGroupSpec, FullAttentionSpec
from pagedkv.specs.fields import Fields, message, said, text_fields
from pagedkv.specs.layer_kinds import layer_kinds
from pagedkv.specs.layer_specs import Defaults, Spec, specs_of_layer
from pagedkv.specs.mask_details import groups_from_mask_details

_DECODER_LAYERS = ("decoder_layers", "num_decoder_layers")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_ONE_PER_LAYER = ("layer_types", "layers_block_type", "hybrid_override_pattern")
_SAYS_SOMETHING = ("sliding_window", "attention_chunk_size", "kv_lora_rank")


def create_kv_cache_specs_from_config(
    config: Any,
    page_size: int,
    num_kv_heads: int | None,
    head_size: int | None,
    dtype: object,
    use_mla: bool = False,
) -> list[CacheGroupSpec]:
    """Groups the layers of a model by what they keep in the cache.

    Layers with equal specs share a group, in the order of their first layers, and are named
    ``"layer.3"``. A layer that keeps a second thing is in a second group too: ``"layer.3.state"``
    beside attention, ``"layer.3.indexer"`` for the keys of sparse attention, ``"layer.3.cross"`` for
    an encoder's K/V. Layers that keep nothing, or use another one's K/V, are in no group.

    Args:
      config: Either of:

        * an object with ``get_mask_details()``, as EasyDeL's configs have: read as EasyDeL 0.3.0
          reads it, so ``head_size`` counts for all layers, and recurrent layers as what it says;
        * a Hugging Face config: an object of ``transformers``, another with such fields, or the dict
          of a ``config.json``. Configs of several models in one are read at their text model.

      page_size: Tokens a page holds.
      num_kv_heads: For layers of which the config says neither ``num_key_value_heads`` nor
        ``num_kv_heads``. None if it must.
      head_size: For layers of which the config does not say ``head_dim``. None if it must.
      dtype: Name of the element type, or a NumPy, ml_dtypes or JAX dtype.
      use_mla: One latent row of ``head_size`` stands for K and V. A Hugging Face config with
        ``kv_lora_rank`` has latent layers without it: one row of ``kv_lora_rank +
        qk_rope_head_dim``.

    Returns:
      At least one group. A config that says nothing of layers gives one of full attention, with
      ``layer_names`` None.

    Raises:
      ValueError: If a layer type is unknown, a field is missing or out of range, or no layer keeps
        anything.
      TypeError: If an argument or a field is of another type.

    Example:
        >>> config = {
        ...     "num_hidden_layers": 3,
        ...     "num_key_value_heads": 1,
        ...     "head_dim": 256,
        ...     "sliding_window": 512,
        ...     "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        ... }
        >>> groups = create_kv_cache_specs_from_config(config, 16, 1, 256, "bfloat16")
        >>> [(group.kv_cache_spec.type_id, group.layer_names) for group in groups]
        [('sliding_window_512_16_16384', ['layer.0', 'layer.1']), ('full_attention_16_16384', ['layer.2'])]
    """
    if hasattr(config, "get_mask_details"):
        return groups_from_mask_details(
            config,
            config.get_mask_details(),
            page_size=page_size,
            num_kv_heads=said("num_key_value_heads", num_kv_heads),
            head_size=said("head_dim", head_size),
            dtype=dtype,
            use_mla=use_mla,
        )
    fields = text_fields(config)
    num_layers = _num_layers(fields)
    if num_layers is None:
        if num_kv_heads is None or head_size is None:
            raise ValueError(message("the config must have num_hidden_layers, and has not"))
        full = FullAttentionSpec(page_size, num_kv_heads, head_size, dtype, use_mla)
        return [CacheGroupSpec(full)]
    defaults = Defaults(page_size, num_kv_heads, head_size, dtype, use_mla)
    names_of: dict[Spec, list[str]] = {}
    for index, kind in enumerate(layer_kinds(fields, num_layers)):
        for name, spec in specs_of_layer(fields, index, kind, defaults):
            names_of.setdefault(spec, []).append(name)
    if not names_of:
        raise ValueError(message("no layer of the config keeps anything"))
    return [CacheGroupSpec(spec, names) for spec, names in names_of.items()]


def _num_layers(fields: Fields) -> int | None:
    """None for a config that says nothing of its layers."""
    is_decoder = fields.get("is_encoder_decoder") is True
    num_layers = fields.size(*_DECODER_LAYERS, *_LAYERS) if is_decoder else fields.size(*_LAYERS)
    if num_layers is not None:
        is_double = fields.get("model_type") == "longcat_flash" and not fields.get(_LAYERS[0])
        return num_layers * 2 if is_double else num_layers
    for name in _ONE_PER_LAYER:
        layers = fields.get(name)
        if layers:
            return len(layers)
    if fields.first(*_SAYS_SOMETHING) is not None:
        return fields.required_size("num_hidden_layers")
    return None
