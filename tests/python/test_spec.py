"""Specs: what a page of a layer holds, what a request needs, and every way to say it wrong."""

import copy
import pickle
from functools import partial

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pagedkv
import pytest
from pagedkv import (
    AttentionSpec,
    CacheGroupsConfig,
    CacheGroupSpec,
    CacheSpec,
    ChunkedLocalAttentionSpec,
    CrossAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    SinkFullAttentionSpec,
    SlidingWindowSpec,
)
from spec_golden import SPECS

SIZES = {"page_size": 16, "num_kv_heads": 2, "head_size": 64, "dtype": "bfloat16"}
OWN_FIELDS = {
    FullAttentionSpec: {},
    SlidingWindowSpec: {"sliding_window": 512},
    ChunkedLocalAttentionSpec: {"attention_chunk_size": 512},
    SinkFullAttentionSpec: {"sink_len": 32},
    CrossAttentionSpec: {},
}
ATTENTION_SPECS = list(OWN_FIELDS)
LIMITS = {"max_model_len": 10_000, "max_num_batched_tokens": 2048, "max_encoder_tokens": 1500}


def make(spec, **changes):
    return spec(**(SIZES | OWN_FIELDS[spec] | changes))


def mamba(**changes):
    return MambaSpec(**({"page_size": 16, "shapes": ((4, 8), (8,)), "dtype": "float32"} | changes))


# Made anew for each test: instances that modules hold outlive the extension, which reports leaks.
EVERY_SPEC = [
    *(partial(make, spec) for spec in ATTENTION_SPECS),
    partial(FullAttentionSpec, 16, 2, 64, "int8", True, 512),
    partial(FullAttentionSpec, 16, 2, 64, "int8", attention_chunk_size=512, head_size_v=32),
    partial(SlidingWindowSpec, 16, 2, 64, "int8", True, 512, page_size_padded=4096),
    mamba,
    partial(
        mamba,
        dtype=("bfloat16", "float32"),
        page_size_padded=4096,
        cache_mode="align",
        num_speculative_pages=2,
    ),
]


@pytest.fixture(params=EVERY_SPEC, ids=lambda make_spec: repr(make_spec()))
def any_spec(request):
    return request.param()


def test_page_holds_keys_and_values():
    spec = FullAttentionSpec(page_size=16, num_kv_heads=3, head_size=64, dtype="float32")
    assert spec.page_size_bytes == 16 * 3 * 64 * 4 * 2
    assert (spec.page_size, spec.num_kv_heads, spec.head_size) == (16, 3, 64)
    assert not spec.use_mla
    assert isinstance(spec, AttentionSpec)
    assert isinstance(spec, CacheSpec)


def test_latent_page_holds_one_row_a_token():
    spec = FullAttentionSpec(16, 1, 576, "bfloat16", use_mla=True)
    assert spec.page_size_bytes == 16 * 576 * 2
    assert spec == FullAttentionSpec(16, 1, 576, "bfloat16", head_size_v=0)
    assert (spec.use_mla, spec.head_size_v, spec.kind) == (True, 0, "mla_attention")


def test_keys_and_values_may_differ_in_size():
    spec = FullAttentionSpec(16, 4, 192, "bfloat16", head_size_v=128)
    assert spec.page_size_bytes == 16 * 4 * (192 + 128) * 2


@pytest.mark.parametrize("spec", ATTENTION_SPECS)
def test_padding_replaces_the_size_of_a_page(spec):
    padded = make(spec, page_size_padded=10_000)
    assert (padded.page_size_bytes, padded.real_page_size_bytes) == (10_000, 8192)
    assert padded.page_size_padded == 10_000
    assert make(spec).page_size_padded is None


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        jnp.bfloat16,
        ml_dtypes.bfloat16,
        np.dtype(ml_dtypes.bfloat16),
        jnp.zeros(1, "bfloat16").dtype,
    ],
    ids=["name", "jax", "ml_dtypes", "numpy dtype", "array's dtype"],
)
def test_takes_a_dtype_in_every_form(dtype):
    assert FullAttentionSpec(16, 1, 64, dtype).dtype == "bfloat16"
    assert MambaSpec(16, ((4,),), dtype).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("float32", 32),
        ("float16", 16),
        ("int8", 8),
        ("float8_e4m3fn", 8),
        ("float8_e5m2", 8),
        ("int4", 4),
    ],
)
def test_counts_the_bits_of_a_dtype(dtype, bits):
    assert FullAttentionSpec(8, 1, 64, dtype).page_size_bytes == 8 * 64 * 2 * bits // 8


@pytest.mark.parametrize(("name", "arguments", "expected"), SPECS)
def test_agrees_with_easydel(name, arguments, expected):
    spec = getattr(pagedkv, name)(*arguments)
    limits = {"max_model_len": 10_000, "max_num_batched_tokens": 2048}
    got = (spec.type_id, spec.page_size_bytes, spec.max_memory_usage_bytes(**limits))
    assert got == expected


def test_cross_attention_keeps_the_encoder_tokens():
    spec = make(CrossAttentionSpec)
    assert spec.max_memory_usage_bytes(**LIMITS) == 94 * 8192  # ceil(1500 / 16) pages
    assert (spec.type_id, spec.kind) == ("cross_attention_16_8192", "cross_attention")


def test_sink_counts_as_full_attention():
    spec = make(SinkFullAttentionSpec)
    assert isinstance(spec, FullAttentionSpec)
    assert spec.max_memory_usage_bytes(**LIMITS) == 625 * 8192
    assert (spec.type_id, spec.sink_len) == ("sink_full_attention_32_16_8192", 32)


def test_latent_cache_may_slide():
    spec = make(SlidingWindowSpec, use_mla=True)
    assert (spec.type_id, spec.kind) == ("sliding_window_mla_512_16_4096", "sliding_window_mla")


@pytest.mark.parametrize(
    ("cache_mode", "num_speculative_pages", "pages"),
    [("none", 0, 1), ("none", 3, 4), ("align", 0, 2), ("align", 3, 5)],
)
def test_state_pages_by_cache_mode(cache_mode, num_speculative_pages, pages):
    spec = mamba(cache_mode=cache_mode, num_speculative_pages=num_speculative_pages)
    assert spec.max_memory_usage_bytes(**LIMITS) == pages * spec.page_size_bytes


def test_state_arrays_may_have_their_own_dtypes():
    spec = mamba(dtype=("bfloat16", "float32"))
    assert spec.page_size_bytes == 4 * 8 * 2 + 8 * 4
    assert (spec.shapes, spec.dtype) == (((4, 8), (8,)), ("bfloat16", "float32"))
    assert mamba(shapes=[[4, 8], [8]], dtype=["float32"] * 2) == mamba()


def test_is_a_value(any_spec):
    for twin in (
        copy.copy(any_spec),
        copy.deepcopy(any_spec),
        pickle.loads(pickle.dumps(any_spec)),
    ):
        assert twin == any_spec
        assert hash(twin) == hash(any_spec)
        assert type(twin) is type(any_spec)
    assert eval(repr(any_spec), vars(pagedkv).copy()) == any_spec
    assert sum(make_spec() == any_spec for make_spec in EVERY_SPEC) == 1
    assert any_spec != "spec"
    with pytest.raises(AttributeError):
        any_spec.page_size = 1


def test_sink_is_not_equal_to_what_it_derives_from():
    assert make(FullAttentionSpec) != make(SinkFullAttentionSpec)
    assert make(SinkFullAttentionSpec) != make(FullAttentionSpec)


def test_merge_of_equal_specs_is_the_spec(any_spec):
    assert type(any_spec).merge([any_spec, copy.copy(any_spec)]) == any_spec
    with pytest.raises(ValueError, match=r"cannot merge 0 specs"):
        type(any_spec).merge([])


def test_merge_refuses_other_types():
    with pytest.raises(ValueError, match="merge takes specs of this type, got a SlidingWindowSpec"):
        FullAttentionSpec.merge([make(FullAttentionSpec), make(SlidingWindowSpec)])


def test_merge_joins_the_windows_of_full_attention():
    plain, window = make(FullAttentionSpec), make(FullAttentionSpec, sliding_window=512)
    chunk = make(FullAttentionSpec, attention_chunk_size=512)
    assert FullAttentionSpec.merge([plain, window]) == window
    with pytest.raises(ValueError, match="cannot have both a sliding_window"):
        FullAttentionSpec.merge([window, chunk])
    with pytest.raises(ValueError, match="one window size, got 512 and 64"):
        FullAttentionSpec.merge([window, make(FullAttentionSpec, sliding_window=64)])


def test_merge_window_sizes():
    assert FullAttentionSpec.merge_window_sizes(set()) is None
    sizes = {512}
    assert FullAttentionSpec.merge_window_sizes(sizes) == 512
    assert sizes == {512}
    with pytest.raises(ValueError, match="must have one window size"):
        FullAttentionSpec.merge_window_sizes({512, 64})
    with pytest.raises(TypeError, match="a window size must be an int, got '512'"):
        FullAttentionSpec.merge_window_sizes(["512"])


def test_new_page_size_keeps_the_rest(any_spec):
    larger = any_spec.copy_with_new_page_size(32)
    assert larger.page_size == 32
    assert larger.copy_with_new_page_size(16) == any_spec
    scale = 1 if isinstance(any_spec, MambaSpec) else 2
    assert larger.page_size_bytes == scale * any_spec.page_size_bytes


@pytest.mark.parametrize("spec", ATTENTION_SPECS)
@pytest.mark.parametrize("name", ["page_size", "num_kv_heads", "head_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_refuses_sizes_below_one(spec, name, value):
    text = rf"^\[{spec.__name__}\] {name} must be >= 1, got {value}$"
    with pytest.raises(ValueError, match=text):
        make(spec, **{name: value})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (FullAttentionSpec, "sliding_window"),
        (FullAttentionSpec, "attention_chunk_size"),
        (SlidingWindowSpec, "sliding_window"),
        (ChunkedLocalAttentionSpec, "attention_chunk_size"),
        (SinkFullAttentionSpec, "sink_len"),
    ],
)
@pytest.mark.parametrize("value", [0, -7])
def test_refuses_windows_below_one(spec, field, value):
    with pytest.raises(ValueError, match=rf"^\[{spec.__name__}\] {field} must be >= 1, got"):
        make(spec, **{field: value})


@pytest.mark.parametrize("spec", ATTENTION_SPECS)
@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("page_size", 16.0, "an int"),
        ("num_kv_heads", "8", "an int"),
        ("head_size", None, "an int"),
        ("head_size", True, "an int"),
        ("use_mla", 1, "a bool"),
        ("head_size_v", 1.5, "an int"),
        ("page_size_padded", "x", "an int"),
    ],
)
def test_refuses_other_types(spec, name, value, kind):
    with pytest.raises(TypeError, match=rf"^\[{spec.__name__}\] {name} must be {kind}, got"):
        make(spec, **{name: value})


@pytest.mark.parametrize(
    ("spec", "field"),
    [(SlidingWindowSpec, "sliding_window"), (ChunkedLocalAttentionSpec, "attention_chunk_size")],
)
def test_refuses_a_missing_window(spec, field):
    with pytest.raises(TypeError, match=rf"^\[{spec.__name__}\] {field} must be an int, got None"):
        spec(**SIZES)


def test_takes_numpy_integers_and_refuses_what_does_not_fit():
    assert FullAttentionSpec(np.int64(16), np.int32(2), 64, "int8").page_size == 16
    with pytest.raises(ValueError, match="page_size must be an int32, got 2147483648"):
        FullAttentionSpec(2**31, 2, 64, "int8")
    with pytest.raises(ValueError, match="a page is larger than"):
        FullAttentionSpec(2**30, 2**30, 2**30, "int8")


@pytest.mark.parametrize("spec", ATTENTION_SPECS)
def test_refuses_values_and_padding_that_cannot_be(spec):
    with pytest.raises(ValueError, match="head_size_v must be 0 with use_mla, got 64"):
        make(spec, use_mla=True, head_size_v=64)
    with pytest.raises(ValueError, match="head_size_v must be >= 0, got -1"):
        make(spec, head_size_v=-1)
    with pytest.raises(ValueError, match="page_size_padded must be >= 8192, the bytes of a page"):
        make(spec, page_size_padded=8191)


def test_refuses_sinks_that_are_not_whole_pages():
    with pytest.raises(ValueError, match="sink_len must be a multiple of page_size 16, got 20"):
        make(SinkFullAttentionSpec, sink_len=20)


@pytest.mark.parametrize(
    ("field", "value", "error", "text"),
    [
        ("page_size", 0, ValueError, "page_size must be >= 1, got 0"),
        ("shapes", (), ValueError, "shapes must not be empty"),
        ("shapes", ((4, 0),), ValueError, "a dimension of shapes must be >= 1, got 0"),
        ("shapes", ((4, "x"),), TypeError, "a dimension of shapes must be an int, got 'x'"),
        ("shapes", (4, 8), TypeError, "shapes must be a tuple of tuples of int, got"),
        ("shapes", None, TypeError, "shapes must be a tuple of tuples of int, got None"),
        ("dtype", ("int8",), ValueError, "dtype must be one or as many as shapes, got 1 for 2"),
        ("page_size_padded", 1, ValueError, "page_size_padded must be >= 160"),
        ("cache_mode", "all", ValueError, "cache_mode must be 'none' or 'align', got 'all'"),
        ("cache_mode", 1, TypeError, "cache_mode must be a str, got 1"),
        ("num_speculative_pages", -1, ValueError, "num_speculative_pages must be >= 0, got -1"),
    ],
)
def test_refuses_bad_states(field, value, error, text):
    with pytest.raises(error) as caught:
        mamba(**{field: value})
    assert str(caught.value).startswith(f"[MambaSpec] {text}")


def test_merge_refuses_states_of_other_pages():
    with pytest.raises(ValueError, match="must have one page_size, got 16 and 8"):
        MambaSpec.merge([mamba(), mamba(page_size=8)])
    with pytest.raises(ValueError, match="must have one page_size_bytes, got 160 and 4096"):
        MambaSpec.merge([mamba(), mamba(page_size_padded=4096)])


@pytest.mark.parametrize("limit", ["max_model_len", "max_num_batched_tokens"])
def test_refuses_negative_limits(limit):
    spec = make(SlidingWindowSpec)
    with pytest.raises(ValueError, match=rf"{limit} must be >= 0, got -1"):
        spec.max_memory_usage_bytes(**(LIMITS | {limit: -1}))
    with pytest.raises(TypeError, match=rf"{limit} must be an int, got 1.5"):
        spec.max_memory_usage_bytes(**(LIMITS | {limit: 1.5}))


def test_refuses_unknown_dtypes():
    with pytest.raises(
        ValueError, match=r"^\[DType\] unknown dtype 'bf16', must be one of float32,"
    ):
        FullAttentionSpec(16, 1, 64, "bf16")
    with pytest.raises(ValueError, match="unknown dtype 'complex64'"):
        FullAttentionSpec(16, 1, 64, np.complex64)
    with pytest.raises(TypeError, match=r"^\[DType\] must be a dtype or its name, got <object"):
        FullAttentionSpec(16, 1, 64, object())
    with pytest.raises(TypeError, match=r"^\[DType\] must be a dtype or its name, got None"):
        FullAttentionSpec(16, 1, 64, None)


def test_refuses_pages_that_are_not_whole_bytes():
    with pytest.raises(ValueError, match="a page must be whole bytes, got 12 bits"):
        FullAttentionSpec(1, 1, 3, "int4", use_mla=True)


def test_group_keeps_its_spec_and_layers(any_spec):
    group = CacheGroupSpec(any_spec, ["layer.0", "layer.1"])
    assert group.kv_cache_spec == any_spec
    assert type(group.kv_cache_spec) is type(any_spec)
    assert group.layer_names == ["layer.0", "layer.1"]
    assert CacheGroupSpec(any_spec).layer_names is None
    assert pickle.loads(pickle.dumps(group)) == group != CacheGroupSpec(any_spec)


def test_config_keeps_pages_and_groups():
    groups = [CacheGroupSpec(make_spec()) for make_spec in EVERY_SPEC]
    config = CacheGroupsConfig(num_pages=64, kv_cache_groups=groups)
    assert (config.num_pages, config.kv_cache_groups) == (64, groups)
    assert pickle.loads(pickle.dumps(config)) == config


def test_refuses_bad_groups_and_configs():
    group = CacheGroupSpec(make(FullAttentionSpec))
    with pytest.raises(TypeError, match=r"\[CacheGroupSpec\] kv_cache_spec must be a CacheSpec"):
        CacheGroupSpec("full")
    with pytest.raises(ValueError, match=r"\[CacheGroupsConfig\] num_pages must be >= 1, got 0"):
        CacheGroupsConfig(0, [group])
    with pytest.raises(ValueError, match="kv_cache_groups must not be empty"):
        CacheGroupsConfig(8, [])
    with pytest.raises(TypeError):
        CacheGroupsConfig(8, [make(FullAttentionSpec)])
