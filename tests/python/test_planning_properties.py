"""What holds for every plan."""

import json

import pytest
import vllm_planner
from hypothesis import assume, given
from hypothesis import strategies as st
from pagedkv import DoesNotFitError, KVLayout, plan_memory
from pagedkv.planning.sizes import format_bytes, parse_bytes, parse_tokens

HEADS = [1, 2, 4, 6, 8]
TYPES = ["full_attention", "sliding_attention", "chunked_attention", "linear_attention"]


@st.composite
def configs(draw, types=TYPES):
    """Any mix of layers; of states those of Qwen3-Next."""
    return {
        "layer_types": draw(st.lists(st.sampled_from(types), min_size=1, max_size=12)),
        "num_hidden_layers": None,
        "num_attention_heads": 24,
        "num_key_value_heads": draw(st.sampled_from(HEADS)),
        "head_dim": draw(st.sampled_from([16, 64, 80, 128])),
        "sliding_window": draw(st.integers(1, 300)),
        "attention_chunk_size": draw(st.integers(1, 300)),
        "linear_num_value_heads": 24,
        "linear_num_key_heads": 24,
        "linear_key_head_dim": draw(st.sampled_from([2, 16])),
        "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 4,
    }


@st.composite
def arguments(draw):
    return {
        "mesh": {"tp": draw(st.sampled_from([1, 2, 24])), "dp": draw(st.integers(1, 3))},
        "page_size": draw(st.sampled_from([1, 3, 8, 16, 64])),
        "max_model_len": draw(st.integers(1, 2000)),
        "max_num_batched_tokens": draw(st.sampled_from([1, 64, 3000])),
        "weights": draw(st.integers(0, 1000)),
        "hbm_utilization": draw(st.floats(0.1, 1.0)),
    }


storages = st.fixed_dictionaries(
    {
        "layout": st.sampled_from([layout for layout in KVLayout if not layout.is_latent]),
        "dtype": st.sampled_from(["float32", "bfloat16", "int8", "fp8"]),
    }
)
memories = st.integers(0, 40_000_000)


def plan_or_error(*args, **options):
    try:
        return plan_memory(*args, **options)
    except DoesNotFitError as error:
        return error


def plan_with_at_least(config, memory, **options):
    """With as much more memory as it needs."""
    error = plan_or_error(config, memory, **options)
    if not isinstance(error, DoesNotFitError):
        return error
    return plan_memory(config, error.suggestion.memory + memory, **options)


@given(configs(), memories, arguments(), storages)
def test_a_plan_is_the_largest_that_fits(config, memory, options, storage):
    plan = plan_with_at_least(config, memory, **options, **storage)
    assert plan.kv_bytes == int(plan.memory * options["hbm_utilization"]) - plan.weights
    unused = plan.kv_bytes - plan.num_pages_per_rank * plan.page_bytes
    assert 0 <= unused < plan.page_bytes
    assert plan.request_pages < plan.num_pages_per_rank
    assert plan.max_concurrent_requests >= plan.mesh.dp
    assert plan.max_concurrent_requests * plan.request_pages <= plan.num_pages - 1
    assert 0 < plan.num_tokens * plan.request_pages <= (plan.num_pages - 1) * plan.max_model_len
    assert 0 <= plan.left_over_bytes < plan.kv_bytes
    assert json.loads(plan.to_json()) == plan.to_dict()


@given(configs(), memories, arguments(), storages)
def test_waste_is_no_more_than_there_is(config, memory, options, storage):
    plan = plan_with_at_least(config, memory, **options, **storage)
    for group, pages, waste in zip(plan.groups, plan.pages_per_request, plan.wastes, strict=True):
        parts = vars(waste).values()
        assert all(part >= 0 for part in parts)
        assert sum(parts) == waste.total <= pages * plan.page_bytes
        assert group.stored_bytes <= plan.page_bytes


@given(configs(), memories, st.integers(1, 10_000_000), arguments(), storages)
def test_more_memory_never_gives_fewer_pages(config, memory, more, options, storage):
    less = plan_with_at_least(config, memory, **options, **storage)
    plan = plan_memory(config, less.memory + more, **options, **storage)
    assert plan.num_pages >= less.num_pages
    assert plan.max_concurrent_requests >= less.max_concurrent_requests
    assert plan.pages_per_request == less.pages_per_request


@given(configs(types=TYPES[:3]), memories, arguments())
def test_elements_of_twice_the_bytes_halve_the_pages(config, memory, options):
    plan = plan_with_at_least(config, memory, **options, dtype="float32")
    half = plan_memory(config, plan.memory, **options, dtype="float16")
    assert half.num_pages_per_rank - 2 * plan.num_pages_per_rank in (0, 1)
    assert half.page_bytes * 2 == plan.page_bytes


@given(configs(), memories, arguments(), storages)
def test_what_is_suggested_fits(config, memory, options, storage):
    error = plan_or_error(config, memory, **options, **storage)
    assume(isinstance(error, DoesNotFitError))
    suggestion = error.suggestion
    enough = plan_memory(config, suggestion.memory, **options, **storage)
    assert enough.max_concurrent_requests >= 1
    assert isinstance(
        plan_or_error(config, suggestion.memory - 1, **options, **storage), DoesNotFitError
    )
    options = dict(options)
    length, page_size = options.pop("max_model_len"), options.pop("page_size")
    shortest = plan_or_error(
        config, memory, **options, **storage, page_size=page_size, max_model_len=1
    )
    if suggestion.max_model_len is None:
        assert isinstance(shortest, DoesNotFitError)
        return
    assert suggestion.max_model_len <= length
    options["page_size"] = suggestion.page_size
    fits = plan_memory(config, memory, **options, **storage, max_model_len=suggestion.max_model_len)
    assert fits.max_concurrent_requests >= 1
    if suggestion.max_model_len < length:  # then no page more
        longer = min(length, suggestion.max_model_len + suggestion.page_size)
        more = plan_or_error(config, memory, **options, **storage, max_model_len=longer)
        assert isinstance(more, DoesNotFitError)
        if not isinstance(shortest, DoesNotFitError):
            assert suggestion.page_size == page_size


@given(configs(), memories, arguments())
def test_agrees_with_vllm(config, memory, options):
    options["mesh"] = {"tp": 1}
    plan = plan_with_at_least(config, memory, **options)
    token = config["num_key_value_heads"] * config["head_dim"] * 4
    conv = 24 * (2 * config["linear_key_head_dim"] + 8) * 4
    state = 2 * (conv + 24 * config["linear_key_head_dim"] * 8)
    layer_of = {
        "full_attention": vllm_planner.Layer("full", token),
        "sliding_attention": vllm_planner.Layer("sliding", token, 0, config["sliding_window"]),
        "chunked_attention": vllm_planner.Layer(
            "chunked", token, 0, config["attention_chunk_size"]
        ),
        "linear_attention": vllm_planner.Layer("state", 0, state),
    }
    layers = [layer_of[name] for name in config["layer_types"]]
    limits = vllm_planner.Limits(options["max_model_len"], options["max_num_batched_tokens"])
    answer = vllm_planner.plan(layers, options["page_size"], limits, plan.kv_bytes)
    assert plan.page_bytes == answer.page_bytes
    assert sorted(plan.pages_per_request) == answer.blocks_per_request
    assert plan.num_pages == answer.num_blocks


@given(st.integers(0, 2**60))
def test_sizes_are_read_as_they_are_written(size):
    assert parse_bytes("memory", size) == parse_bytes("memory", str(size)) == size
    shown = parse_bytes("memory", format_bytes(size).replace(",", ""))
    assert abs(shown - size) <= size * 0.006


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("80GiB", 80 * 2**30),
        ("80GB", 80 * 10**9),
        ("80 gib", 80 * 2**30),
        (" 1.5KiB ", 1536),
        ("2TB", 2 * 10**12),
        ("3kb", 3000),
        ("7B", 7),
        ("0.1TiB", 2**40 // 10),
    ],
)
def test_reads_bytes(text, size):
    assert parse_bytes("memory", text) == size


@pytest.mark.parametrize(
    ("text", "size"), [("128k", 131072), ("128K", 131072), ("1M", 2**20), ("0.5k", 512), ("9", 9)]
)
def test_reads_tokens(text, size):
    assert parse_tokens("max_model_len", text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "80G",
        "GiB",
        "1e9",
        "80GiBs",
        "1,000",
        "0x10",
        "--1",
        "nan",
        "inf",
        "1..5",
        "8 0",
        "٣",
    ],
)
def test_refuses_what_is_no_size(text):
    with pytest.raises(ValueError, match="is no size: write a number"):
        parse_bytes("memory", text)


@pytest.mark.parametrize("size", ["-1", "-80GiB", -1])
def test_refuses_negative_sizes(size):
    with pytest.raises(ValueError, match=r"\[plan_memory\] memory must be >= 0, got -"):
        parse_bytes("memory", size)


@pytest.mark.parametrize("size", [1.5, None, True, [1]])
def test_refuses_sizes_of_other_types(size):
    with pytest.raises(TypeError, match="memory must be an int or a str"):
        parse_bytes("memory", size)
