"""From a model's config to its cache groups."""

from types import SimpleNamespace

import numpy as np
import pytest
from pagedkv import FullAttentionSpec, SlidingWindowSpec
from pagedkv import create_kv_cache_specs_from_config as create
from spec_families import FAMILIES, GEMMA, LATENT, F, L, S, full, sliding
from spec_golden import CONFIGS, mask_config


def groups_of(config, **options):
    return create(config, 16, 7, 96, "bfloat16", **options)


def facts(groups):
    return [(group.kv_cache_spec, group.layer_names) for group in groups]


def named(expected):
    return [(make(), [f"layer.{name}" for name in names.split()]) for make, names in expected]


@pytest.mark.parametrize(("letters", "fields", "use_mla", "expected"), CONFIGS)
def test_reads_mask_details_as_easydel(letters, fields, use_mla, expected):
    config = mask_config(letters, **fields)
    groups = create(config, 16, 8, 128, "bfloat16", use_mla=use_mla)
    assert [(group.kv_cache_spec.type_id, group.layer_names) for group in groups] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_a_family(family):
    fields, expected = FAMILIES[family]
    assert facts(groups_of(fields)) == named(expected)
    assert facts(groups_of(SimpleNamespace(**fields))) == named(expected)


def test_reads_the_text_part_of_several():
    fields, expected = FAMILIES["gemma3"]
    nested = {"model_type": "gemma3", "text_config": fields, "vision_config": {"head_dim": 1}}
    assert facts(groups_of(nested)) == named(expected)
    with_method = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**fields))
    assert facts(groups_of(with_method)) == named(expected)


class PerLayer:
    """As transformers does for Gemma 4: a field that layers differ in cannot be read globally."""

    num_hidden_layers = 2
    layer_types = (S, F)
    per_layer_config = (
        SimpleNamespace(head_dim=256, num_key_value_heads=4, sliding_window=512),
        SimpleNamespace(head_dim=512, num_key_value_heads=2),
    )

    @property
    def head_dim(self):
        raise RuntimeError("'head_dim' is a per-layer attribute")


def test_reads_layers_with_configs_of_their_own():
    assert facts(groups_of(PerLayer())) == named([(sliding(4, 256, 512), "0"), (full(2, 512), "1")])


def test_config_that_says_nothing_has_full_attention():
    expected = [(FullAttentionSpec(16, 7, 96, "bfloat16", use_mla=True), None)]
    assert facts(groups_of(SimpleNamespace(), use_mla=True)) == expected
    assert facts(groups_of({}, use_mla=True)) == expected


def test_use_mla_makes_all_attention_latent():
    config = {"layer_types": [F, S], "sliding_window": 8}
    latent = [group.kv_cache_spec for group in groups_of(config, use_mla=True)]
    assert latent == [
        FullAttentionSpec(16, 7, 96, "bfloat16", use_mla=True),
        SlidingWindowSpec(16, 7, 96, "bfloat16", True, 8),
    ]


def test_takes_numpy_integers():
    config = {"num_hidden_layers": np.int64(1), "head_dim": np.int32(64)}
    assert groups_of(config)[0].kv_cache_spec == full(7, 64)()


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        (
            {"layer_types": [F, "magic"]},
            ValueError,
            "layer type 'magic' of layer.1 is unknown, must be one of attention, ",
        ),
        (
            {"layer_types": ["heavily_compressed_attention"]},
            ValueError,
            "layer type 'heavily_compressed_attention' of layer.0 is not supported",
        ),
        ({"hybrid_override_pattern": "M?"}, ValueError, "layer type '?' of layer.1 is unknown"),
        (
            {"num_hidden_layers": 3, "layer_types": [F]},
            ValueError,
            "layer_types must have an item for each of 3 layers, got 1",
        ),
        ({"layer_types": [S]}, ValueError, "layer.0 needs sliding_window, which the config has"),
        (
            {"layer_types": ["chunked_attention"]},
            ValueError,
            "layer.0 needs attention_chunk_size, which the config has not",
        ),
        ({"layer_types": "full"}, TypeError, "layer_types must be a list, got 'full'"),
        ({"sliding_window": 8}, ValueError, "the config must have num_hidden_layers, and has not"),
        ({"num_hidden_layers": 0}, ValueError, "num_hidden_layers must be >= 1, got 0"),
        ({"num_hidden_layers": "2"}, TypeError, "num_hidden_layers must be an int, got '2'"),
        ({"num_hidden_layers": True}, TypeError, "num_hidden_layers must be an int, got True"),
        (
            {"num_hidden_layers": 1, "sliding_window": -1},
            ValueError,
            "sliding_window must be >= 1, got -1",
        ),
        (
            {"num_hidden_layers": 1, "head_dim": 64.0},
            TypeError,
            "head_dim must be an int, got 64.0",
        ),
        (
            {"num_hidden_layers": 2, "num_key_value_heads": [4]},
            ValueError,
            "num_key_value_heads has no item for layer.1",
        ),
        (
            {"num_hidden_layers": 1, "kv_lora_rank": 512},
            ValueError,
            "the config must have qk_rope_head_dim, and has not",
        ),
        (
            {"layer_types": [L], "hidden_size": 64},
            ValueError,
            "the config must have mamba_expand or expand, and has not",
        ),
        ({"layer_types": ["mlp"]}, ValueError, "no layer of the config keeps anything"),
        (
            LATENT | {"layer_types": ["indexed_attention"] * 2},
            ValueError,
            "the config must have index_head_dim, and has not",
        ),
        (mask_config("S"), ValueError, "sliding attention without a window size: ['layer.0']"),
        (mask_config("C"), ValueError, "chunked attention without a chunk size: ['layer.0']"),
    ],
)
def test_refuses_bad_configs(config, error, text):
    with pytest.raises(error) as caught:
        groups_of(config)
    assert str(caught.value).startswith(f"[create_kv_cache_specs_from_config] {text}")


def test_refuses_unknown_masks():
    detail = SimpleNamespace(mask_type="ATTN_MASK_LINEAR", size=None, chunks=None)
    config = SimpleNamespace(get_mask_details=lambda: {0: detail})
    with pytest.raises(ValueError, match="unknown attention mask type 'LINEAR' of"):
        groups_of(config)


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match=r"\[SlidingWindowSpec\] page_size must be >= 1, got 0"):
        create(GEMMA | {"layer_types": [S]}, 0, 7, 96, "bfloat16")
    with pytest.raises(
        TypeError, match=r"\[FullAttentionSpec\] head_size must be an int, got '96'"
    ):
        create({"num_hidden_layers": 1}, 16, 7, "96", "bfloat16")


def test_none_leaves_sizes_to_the_config():
    layer = {"num_hidden_layers": 1}
    with pytest.raises(ValueError, match="the config must have num_key_value_heads, and has not"):
        create(layer, 16, None, 96, "bfloat16")
    with pytest.raises(ValueError, match="the config must have head_dim, and has not"):
        create(layer, 16, 7, None, "bfloat16")
    with pytest.raises(ValueError, match="the config must have num_hidden_layers, and has not"):
        create({}, 16, 7, None, "bfloat16")
    with pytest.raises(ValueError, match="the config must have head_dim, and has not"):
        create(mask_config("FF"), 16, 8, None, "bfloat16")
    config = layer | {"num_key_value_heads": 7, "head_dim": 96}
    expected = [(FullAttentionSpec(16, 7, 96, "bfloat16"), ["layer.0"])]
    assert facts(create(config, 16, None, None, "bfloat16")) == expected
    latent = create(LATENT, 16, None, None, "bfloat16")
    assert latent[0].kv_cache_spec.head_size == 576
