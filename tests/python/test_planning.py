"""From a config to pages and requests: golden numbers, and vLLM's maths."""

import json
from types import SimpleNamespace

import jax
import pytest
import vllm_planner
from pagedkv import CacheManager, DoesNotFitError, KVLayout, Request, plan_memory
from pagedkv.ops import QuantizedPages
from pagedkv.ops._quantized import split
from pagedkv.planning import Suggestion
from spec_families import FAMILIES, F, S

GiB = 2**30

# --- by hand ---------------------------------------------------------------------------------------

LLAMA_3_1_70B = {
    "model_type": "llama",
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_size": 8192,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
GEMMA_3_27B = {  # as published: the text model of two
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "hidden_size": 5376,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131072,
    },
    "vision_config": {"num_hidden_layers": 27, "hidden_size": 1152},
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}
QWEN3_NEXT_80B = {
    "model_type": "qwen3_next",
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "hidden_size": 2048,
    "full_attention_interval": 4,
    "linear_num_value_heads": 32,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "max_position_embeddings": 262144,
}


def test_llama_3_1_70b_by_hand():
    # A token: 80 layers * 8 heads * (128 + 128) elements * 2 bytes = 327,680 bytes; a page of 16
    # tokens 5,242,880. Each of tp=8 devices has one head: 40,960 and 655,360.
    # 80 GiB = 85,899,345,920; weights 141e9 / 8 = 17,625,000,000; left 68,274,345,920 bytes,
    # / 655,360 = 104,178.4 pages. A request: 131,072 / 16 = 8,192 pages. A replica serves
    # 104,178 // 8,192 = 12 requests, without the null page as well; two replicas 24.
    plan = plan_memory(LLAMA_3_1_70B, "80GiB", mesh="tp=8,dp=2", weights="141GB")
    assert plan.bytes_per_token == 40_960
    assert plan.page_bytes == 655_360
    assert plan.kv_bytes == 68_274_345_920
    assert plan.num_pages_per_rank == 104_178
    assert plan.num_pages == 208_356
    assert plan.pages_per_request == (8_192,)
    assert plan.request_bytes == 5 * GiB
    assert plan.max_concurrent_requests == 24
    assert plan.num_tokens == 208_355 * 16
    assert plan.to_dict()["whole"]["bytes_per_token"] == 327_680
    assert plan.single_type_ratio is None
    # Half of the one last page; all else is used.
    assert plan.waste.total == plan.waste.partial_pages == 655_360 // 2
    assert plan.left_over_bytes == 68_274_345_920 - 12 * 5 * GiB


def test_gemma_3_27b_by_hand():
    # Layers 5, 11, ... 59 are full: 10; 52 have windows of 1,024. A page of 16 tokens of a layer:
    # 16 heads * 16 tokens * 256 elements * 2 bytes = 131,072 bytes. Groups of 10 layers: 1 full, and
    # 6 for 52 layers, which leaves room for 8 layers unused. A page id: 1,310,720 bytes;
    # 80 GiB / 1,310,720 = 65,536. A request of 131,072 tokens: full 8,192 pages; a window
    # ceil((1,023 + 8,192) / 16) + 1 = 577, six times 3,462; 11,654 in all. 65,535 // 11,654 = 5.
    plan = plan_memory(GEMMA_3_27B, 80 * GiB)
    assert plan.page_bytes == 1_310_720
    assert plan.num_pages == 65_536
    assert sorted(plan.pages_per_request) == [577] * 6 + [8_192]
    assert sorted(len(group.layers) for group in plan.groups) == [8, 8, 9, 9, 9, 9, 10]
    assert plan.max_concurrent_requests == 5
    assert plan.bytes_per_token == 62 * 8_192
    # A window needs 1,024 / 16 = 64 pages; 513 are for the tokens of a step, in 6 groups.
    assert plan.waste.beyond_window == 6 * 513 * 1_310_720
    # 8 layers that are not there, in 64 pages each.
    assert plan.waste.page_unification == 8 * 64 * 131_072
    assert plan.waste.partial_pages == 62 * 131_072 // 2
    assert plan.waste.layout_padding == plan.waste.copies == 0
    # All layers full: 62 * 8,192 pages of 131,072 bytes.
    assert plan.single_type_bytes == 66_571_993_088
    assert plan.single_type_ratio == pytest.approx(66_571_993_088 / (11_654 * 1_310_720))
    assert plan.model == "gemma3"


def test_deepseek_v3_by_hand():
    # A token: 61 layers * (512 + 64) elements * 2 bytes = 70,272 bytes, on every device; a page of 64
    # tokens 4,497,408. 141 GiB = 151,397,597,184 bytes, * 0.9 = 136,257,837,465.6; weights
    # 671e9 / 8 = 83,875,000,000; left 52,382,837,465 bytes = 11,647 pages and 1,526,489 bytes.
    # A request: 163,840 / 64 = 2,560 pages; 11,646 // 2,560 = 4.
    plan = plan_memory(
        DEEPSEEK_V3,
        "141GiB",
        mesh={"tp": 8},
        page_size=64,
        weights="671GB",
        hbm_utilization=0.9,
    )
    assert plan.bytes_per_token == 70_272
    assert plan.page_bytes == 4_497_408
    assert plan.kv_bytes == 52_382_837_465
    assert plan.num_pages == 11_647
    assert plan.left_over_bytes == 52_382_837_465 - 4 * 2_560 * 4_497_408
    assert plan.max_concurrent_requests == 4
    # Of eight copies one is needed.
    assert plan.waste.copies == 2_560 * 4_497_408 * 7 // 8
    assert plan.groups[0].kind == "mla_attention"


def test_qwen3_next_by_hand():
    # A state: (8,192 * 4 + 32 * 128 * 128) * 2 bytes = 1,114,112. A token of a full layer: 2 heads *
    # 512 elements * 2 bytes = 2,048 bytes, 16 of them 32,768: 34 such pages, 544 tokens, hold a state
    # exactly. 12 full layers, 36 states: groups of 12. 262,144 / 544 = 481.9: 482 pages, and 3.
    plan = plan_memory(QWEN3_NEXT_80B, "24GiB")
    assert [(group.kind, group.page_size) for group in plan.groups] == [
        ("mamba", 16),
        ("mamba", 16),
        ("mamba", 16),
        ("full_attention", 544),
    ]
    assert plan.page_bytes == 12 * 1_114_112
    assert plan.pages_per_request == (1, 1, 1, 482)
    assert plan.waste.page_unification == 0
    assert plan.single_type_ratio is None


# --- families --------------------------------------------------------------------------------------

LIMITS = vllm_planner.Limits(5000, 512, max_encoder_tokens=1500)
# Pages of 8 * 256 and of 4 * 320 elements: vLLM raises NotImplementedError.
NOT_IN_VLLM = {"mimo-v2, as published"}


def plan_family(name, **options):
    """With the heads and the head size that `spec_families` expects where a config says neither."""
    fields, expected = FAMILIES[name]
    config = {"num_attention_heads": 7, "head_dim": 96} | fields
    if "mamba_headdim" in fields or name == "granite hybrid":
        assert "head_dim" not in fields
    arguments = {
        "memory": "1GiB",
        "dtype": "bfloat16",
        "max_model_len": LIMITS.max_model_len,
        "max_num_batched_tokens": LIMITS.max_num_batched_tokens,
        "max_encoder_tokens": LIMITS.max_encoder_tokens,
    }
    plan = plan_memory(config, **{**arguments, **options})
    layers = [
        vllm_planner.layer_of(make()) for make, names in expected for _ in range(len(names.split()))
    ]
    return plan, layers


@pytest.mark.parametrize("page_size", [16, 48])
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - NOT_IN_VLLM))
def test_agrees_with_vllm(family, page_size):
    plan, layers = plan_family(family, page_size=page_size)
    answer = vllm_planner.plan(layers, page_size, LIMITS, 2**30)
    assert plan.page_bytes == answer.page_bytes
    assert sorted(plan.pages_per_request) == answer.blocks_per_request
    assert plan.num_pages == answer.num_blocks
    # vLLM counts the null block among those that serve requests.
    concurrency = answer.num_blocks / sum(answer.blocks_per_request)
    assert plan.concurrency == pytest.approx(concurrency - 1 / sum(answer.blocks_per_request))


@pytest.mark.parametrize("family", FAMILIES)
def test_plans_a_family(family):
    plan, layers = plan_family(family)
    names = [name for group in plan.groups for name in group.layers]
    assert len(set(names)) == len(names) == len(layers)
    assert plan.max_concurrent_requests >= 1
    assert plan.num_pages * plan.page_bytes <= plan.kv_bytes
    assert all(group.stored_bytes <= plan.page_bytes for group in plan.groups)
    assert 0 <= plan.waste.total < plan.request_bytes
    fields, _ = FAMILIES[family]
    config = {"num_attention_heads": 7, "head_dim": 96} | fields
    options = {"max_model_len": LIMITS.max_model_len, "max_encoder_tokens": 1500}
    as_object = plan_memory(SimpleNamespace(**config), GiB, dtype="bfloat16", **options)
    assert as_object == plan_memory(config, GiB, dtype="bfloat16", **options)


def test_pads_pages_that_do_not_divide_the_largest():
    # 8 * (192 + 64) = 2,048 elements a token of a window, 4 * (192 + 128) = 1,280 of full attention.
    plan, _ = plan_family("mimo-v2, as published")
    assert plan.page_bytes == 2_048 * 2 * 16
    assert [group.stored_bytes for group in plan.groups] == [1_280 * 32, 2_048 * 32]
    assert plan.waste.page_unification == 313 * 768 * 32


@pytest.mark.parametrize(
    ("num_full", "num_sliding", "group_sizes"),
    [
        (12, 13, [12, 13]),  # gpt-oss with a draft layer: vLLM's example
        (2, 3, [1, 2, 2]),  # 1.5 times as many are not close
        (10, 14, [10, 14]),
        (10, 15, [7, 8, 10]),
        (1, 5, [1, 1, 1, 1, 1, 1]),
    ],
)
def test_groups_are_as_long_as_vllm_makes_them(num_full, num_sliding, group_sizes):
    config = {
        "layer_types": [F] * num_full + [S] * num_sliding,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "sliding_window": 128,
    }
    plan = plan_memory(config, "1GiB", max_model_len=5000, max_num_batched_tokens=512)
    assert sorted(len(group.layers) for group in plan.groups) == group_sizes
    layer = vllm_planner.Layer("full", 2048)
    window = vllm_planner.Layer("sliding", 2048, window=128)
    answer = vllm_planner.plan([layer] * num_full + [window] * num_sliding, 16, LIMITS, 2**30)
    assert (plan.page_bytes, plan.num_pages) == (answer.page_bytes, answer.num_blocks)
    assert sorted(plan.pages_per_request) == answer.blocks_per_request


def test_plans_configs_that_describe_their_masks():
    # As EasyDeL's: heads and head size of the config, not 512 / 8.
    details = {
        0: SimpleNamespace(mask_type="ATTN_MASK_SLIDING", size=64, chunks=None),
        1: SimpleNamespace(mask_type="ATTN_MASK_FULL", size=None, chunks=None),
    }
    config = SimpleNamespace(
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=128,
        hidden_size=512,
        max_position_embeddings=4096,
        get_mask_details=lambda: details,
    )
    plan = plan_memory(config, "1GiB")
    assert [(group.kind, group.window) for group in plan.groups] == [
        ("sliding_window", 64),
        ("full_attention", None),
    ]
    assert plan.bytes_per_token == 2 * 2 * 2 * 128 * 2
    config.get_mask_details = lambda: None  # full attention everywhere
    assert len(plan_memory(config, "1GiB").groups[0].layers) == 2


def test_layers_of_one_rule_share_pages_of_several_sizes():
    plan, _ = plan_family("deepseek-v3.2")
    assert len(plan.groups) == 1
    assert plan.page_bytes == 2 * (576 + 128) * 2 * 16
    assert plan.waste.page_unification == 0


# --- meshes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tp", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1), (32, 1)])
def test_tp_cuts_heads_and_then_copies_them(tp, heads):
    plan = plan_memory(LLAMA_3_1_70B, "80GiB", mesh=f"tp={tp}")
    assert plan.bytes_per_token == 80 * heads * 512
    copies = plan.request_bytes * max(0, tp - 8) // tp
    assert plan.waste.copies == copies


@pytest.mark.parametrize("tp", [3, 12, 20])
def test_refuses_heads_that_cannot_be_cut(tp):
    with pytest.raises(ValueError, match=rf"8 kv heads of layer.0 cannot be cut into tp={tp}"):
        plan_memory(LLAMA_3_1_70B, "80GiB", mesh=f"tp={tp}")


def test_tp_cuts_states_by_heads_and_keeps_a_group_on_each_device():
    # Mamba 2: 128 heads of 64, 1 group of 256: conv (8192 + 512) * 4, state 128 * 64 * 256. On one of 4:
    # conv (2048 + 512) * 4, state 32 * 64 * 256.
    plan, _ = plan_family("bamba", mesh="tp=4")
    state = plan.groups[0].spec
    assert state.shapes == ((2048 + 512, 4), (32, 64, 256))
    whole = (8192 + 512) * 4 + 128 * 64 * 256
    device = (2048 + 512) * 4 + 32 * 64 * 256
    assert plan.groups[0].whole_bytes == 2 * whole
    assert plan.waste.copies == 2 * device - 2 * whole // 4
    # Gated delta: 2 * 16 * 128 + 32 * 128 channels, all cut.
    plan, _ = plan_family("qwen3-next", mesh="tp=2")
    assert plan.groups[0].spec.shapes == ((4096, 4), (16, 128, 128))


def test_refuses_states_that_cannot_be_cut():
    with pytest.raises(ValueError, match=r"a state of layer.0 has 1536 heads or channels.* tp=7"):
        plan_family("mamba", mesh="tp=7")


def test_reads_a_mesh_of_jax():
    mesh = jax.make_mesh((4, 2), ("tp", "dp"))
    plan = plan_memory(LLAMA_3_1_70B, "80GiB", mesh=mesh)
    assert plan == plan_memory(LLAMA_3_1_70B, "80GiB", mesh="tp=4, dp=2")
    assert plan.mesh.num_devices == 8


def test_each_replica_has_pages_of_its_own():
    one = plan_memory(LLAMA_3_1_70B, "80GiB", mesh="tp=8")
    four = plan_memory(LLAMA_3_1_70B, "80GiB", mesh="tp=8,dp=4")
    assert four.num_pages_per_rank == one.num_pages
    assert four.num_pages == 4 * one.num_pages
    # 131,072 pages each are 16 requests of 8,192; the null page of all is in the first.
    assert one.num_pages == 131_072
    assert one.max_concurrent_requests == 15
    assert four.max_concurrent_requests == 15 + 3 * 16
    assert four.bytes_per_token == one.bytes_per_token


# --- storage ---------------------------------------------------------------------------------------

SMALL = {"num_hidden_layers": 3, "num_key_value_heads": 6, "head_dim": 80}


@pytest.mark.parametrize("scales", ["token", "page", "none"])
@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("layout", [member for member in KVLayout if not member.is_latent])
def test_a_page_is_as_large_as_its_arrays(layout, dtype, scales):
    plan = plan_memory(SMALL, "1GiB", max_model_len=1024, layout=layout, dtype=dtype, scales=scales)
    arrays = []
    for shape in layout.pool_shapes(
        num_pages=1, page_size=16, num_kv_heads=6, head_dim=80, dtype_bits=8
    ):
        if scales == "none":
            arrays.append(jax.numpy.zeros(shape, dtype))
        else:
            pool = QuantizedPages.zeros(shape, dtype, granularity=scales, layout=layout)
            arrays += split(pool)
    assert plan.page_bytes == 3 * sum(array.nbytes for array in arrays)
    # 6 heads of 80 bytes of K and of V, and scales of 4 bytes.
    data = 16 * 2 * 6 * 80
    num_scales = {"token": 16 * 2 * 6, "page": 2 * 6, "none": 0}[scales]
    (group,) = plan.groups
    assert group.bytes_of_layers[0].data == data
    assert group.bytes_of_layers[0].scales == 4 * num_scales
    padding = plan.page_bytes // 3 - data - 4 * num_scales
    assert plan.waste.layout_padding == 1024 // 16 * 3 * padding
    assert (padding > 0) == (layout is KVLayout.FUSED_PACKED or layout is KVLayout.SIDE_BY_SIDE)


@pytest.mark.parametrize(
    ("layout", "latent", "token_bytes"),
    [
        ("NHD", "LATENT", 576 * 2),
        ("LATENT", "LATENT", 576 * 2),
        ("LATENT_TRANSPOSED", "LATENT_TRANSPOSED", 576 * 2),
        ("LATENT_PACKED", "LATENT_PACKED", 640 * 2),
        ("FUSED_PACKED", "LATENT_PACKED", 640 * 2),
    ],
)
def test_latent_rows_are_padded_where_the_layout_pads(layout, latent, token_bytes):
    plan = plan_memory(DEEPSEEK_V3, "80GiB", layout=layout)
    assert plan.bytes_per_token == 61 * token_bytes
    assert plan.waste.layout_padding == 163_840 * 61 * (token_bytes - 1152)
    assert plan.layouts == (latent,)


def test_latent_rows_have_one_scale():
    plan = plan_memory(DEEPSEEK_V3, "80GiB", dtype="int8")
    assert plan.bytes_per_token == 61 * (576 + 4)
    assert plan.waste.layout_padding == 0


@pytest.mark.parametrize("length", range(1, 12))
def test_suggests_the_longest_that_fits_to_the_token(length):
    # A token of SMALL: 3 layers * 6 heads * 160 elements * 2 bytes; one page is the null page.
    memory = (length + 1) * 3 * 6 * 160 * 2
    with pytest.raises(DoesNotFitError) as raised:
        plan_memory(SMALL, memory, max_model_len=12, page_size=1, dtype="bfloat16")
    assert raised.value.suggestion == Suggestion(length, 1, 13 * 3 * 6 * 160 * 2)


def test_int4_takes_half_a_byte_and_its_scales():
    plan = plan_memory(SMALL, "1GiB", max_model_len=1024, dtype="int4")
    assert plan.bytes_per_token == 3 * 2 * 6 * (40 + 4)
    assert plan.scales == "token"


def test_states_keep_the_dtype_of_the_model():
    fp8 = plan_memory(QWEN3_NEXT_80B, "24GiB", dtype="fp8", scales="none")
    bf16 = plan_memory(QWEN3_NEXT_80B, "24GiB")
    assert fp8.page_bytes == bf16.page_bytes
    assert fp8.groups[-1].page_size == 2 * bf16.groups[-1].page_size


def test_takes_the_dtype_of_the_config():
    assert plan_memory(LLAMA_3_1_70B | {"torch_dtype": "float32"}, "1TiB").dtype == "float32"
    assert plan_memory(LLAMA_3_1_70B | {"torch_dtype": None, "dtype": "float16"}, "1TiB").dtype == (
        "float16"
    )
    assert plan_memory(LLAMA_3_1_70B, "1TiB", dtype="fp8").dtype == "float8_e4m3fn"
    assert plan_memory(LLAMA_3_1_70B, "1TiB", dtype=jax.numpy.float16).dtype == "float16"


# --- a manager keeps the promise -------------------------------------------------------------------

HYBRID = {
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 40,
    "layer_types": [S, S, F, S, S, F, S],
}


@pytest.mark.parametrize("dp", [1, 2])
@pytest.mark.parametrize(
    ("config", "memory"),
    [
        pytest.param(HYBRID, "1MiB", id="hybrid"),
        pytest.param(HYBRID | {"layer_types": [F] * 7}, "3MiB", id="full"),
        pytest.param(FAMILIES["llama4"][0] | {"attention_chunk_size": 48}, "9MiB", id="chunked"),
        pytest.param(FAMILIES["qwen3-next"][0], "32MiB", id="states"),
    ],
)
def test_a_manager_of_this_plan_serves_as_many_longest_requests(config, memory, dp):
    step = 64
    length = 500
    plan = plan_memory(
        config,
        memory,
        mesh={"dp": dp},
        max_model_len=length,
        max_num_batched_tokens=step,
        page_size=4,
    )
    assert plan.max_concurrent_requests >= 2
    manager = CacheManager(
        plan.num_pages, plan.kv_cache_groups, max_model_len=length, data_parallel_size=dp
    )
    per_rank = (plan.num_pages_per_rank - 1) // plan.request_pages
    for number in range(plan.max_concurrent_requests):
        request = Request(f"r{number}", [number * length + i for i in range(length)])
        rank = min(number // per_rank, dp - 1)
        for start in range(0, length, step):
            num_new = min(step, length - start)
            assert manager.allocate(request, num_new, dp_shard=rank)
            manager.commit(request, start + num_new)
    if len(plan.groups) == 1:  # no pages were given back, so the plan is exact
        last = Request("last", list(range(-length, 0)))
        assert not manager.allocate(last, length, dp_shard=0)
    manager.check_invariants()


def test_json_has_what_the_plan_has():
    plan = plan_memory(GEMMA_3_27B, "80GiB", mesh="tp=2")
    found = json.loads(plan.to_json())
    assert found == plan.to_dict()
    assert found["schema"] == "pagedkv.plan/1"
    assert [group["layers"] for group in found["groups"]] == [
        list(group.layers) for group in plan.groups
    ]
    assert (
        sum(group["waste_per_request"]["total"] for group in found["groups"])
        == (found["waste_per_request"]["total"])
    )
