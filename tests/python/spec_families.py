"""The fields of model configs that decide what layers keep, by family, and what they then keep.

The fields are those of the classes of transformers 5.23.0 at their defaults (by some, of a published
`config.json`), with fewer layers. Nothing here needs transformers.
"""

from functools import partial

from pagedkv import (
    ChunkedLocalAttentionSpec,
    CrossAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    SlidingWindowSpec,
)

S, F, L = "sliding_attention", "full_attention", "linear_attention"
BF16 = "bfloat16"


def full(heads, size, **fields):
    return partial(FullAttentionSpec, 16, heads, size, BF16, **fields)


def sliding(heads, size, window, **fields):
    return partial(SlidingWindowSpec, 16, heads, size, BF16, sliding_window=window, **fields)


def latent(size):
    return full(1, size, use_mla=True)


def state(*shapes, dtype=BF16):
    return partial(MambaSpec, 16, shapes, dtype)


GEMMA = {"num_key_value_heads": 4, "head_dim": 256, "sliding_window": 512}
LATENT = {
    "num_hidden_layers": 2,
    "num_key_value_heads": 128,
    "head_dim": 64,
    "v_head_dim": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
}
MAMBA2 = {
    "mamba_n_heads": 128,
    "mamba_d_head": 64,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
}
DELTA = {
    "linear_num_value_heads": 32,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}

# Fields, and then how to make each group's spec, and its layers (for page_size=16, num_kv_heads=7, head_size=96,
# dtype bfloat16).
FAMILIES = {
    "llama": (
        {"num_hidden_layers": 2, "num_key_value_heads": 8, "head_dim": 128},
        [(full(8, 128), "0 1")],
    ),
    "gpt2, which says neither heads nor size": (
        {"n_layer": 2, "n_head": 12, "n_embd": 768},
        [(full(7, 96), "0 1")],
    ),
    "falcon": (
        {"num_hidden_layers": 1, "multi_query": True, "num_kv_heads": 71, "head_dim": 64},
        [(full(1, 64), "0")],
    ),
    "qwen2 with a window": (
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 4,
            "use_sliding_window": True,
            "sliding_window": 4096,
            "max_window_layers": 2,
        },
        [(full(4, 96), "0 1"), (sliding(4, 96, 4096), "2")],
    ),
    "qwen2 without": (
        {
            "num_hidden_layers": 2,
            "num_key_value_heads": 4,
            "use_sliding_window": False,
            "sliding_window": 4096,
            "max_window_layers": 1,
        },
        [(full(4, 96), "0 1")],
    ),
    "mistral": (
        {"num_hidden_layers": 2, "num_key_value_heads": 8, "head_dim": 128, "sliding_window": 4096},
        [(sliding(8, 128, 4096), "0 1")],
    ),
    "mistral without": (
        {"num_hidden_layers": 2, "num_key_value_heads": 8, "head_dim": 128, "sliding_window": None},
        [(full(8, 128), "0 1")],
    ),
    "gemma2": (
        GEMMA | {"model_type": "gemma2", "num_hidden_layers": 4},
        [(sliding(4, 256, 512), "0 2"), (full(4, 256), "1 3")],
    ),
    "gemma3": (
        GEMMA | {"num_hidden_layers": 7, "layer_types": [S] * 5 + [F, S]},
        [(sliding(4, 256, 512), "0 1 2 3 4 6"), (full(4, 256), "5")],
    ),
    "gemma3, older": (
        GEMMA | {"num_hidden_layers": 4, "sliding_window_pattern": 3},
        [(sliding(4, 256, 512), "0 1 3"), (full(4, 256), "2")],
    ),
    "gemma3n": (
        GEMMA | {"num_hidden_layers": 5, "layer_types": [S, F, S, S, F], "num_kv_shared_layers": 2},
        [(sliding(4, 256, 512), "0 2"), (full(4, 256), "1")],
    ),
    "gemma4": (
        GEMMA
        | {
            "num_hidden_layers": 3,
            "layer_types": [S, S, F],
            "per_layer_config": {"02": {"head_dim": 512}},
        },
        [(sliding(4, 256, 512), "0 1"), (full(4, 512), "2")],
    ),
    "gemma4, as published": (
        GEMMA
        | {
            "num_hidden_layers": 3,
            "layer_types": [S, S, F],
            "global_head_dim": 512,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
        },
        [(sliding(4, 256, 512), "0 1"), (full(1, 512), "2")],
    ),
    "exaone4": (
        GEMMA | {"num_hidden_layers": 5, "sliding_window_pattern": "LLLG"},
        [(sliding(4, 256, 512), "0 1 2 4"), (full(4, 256), "3")],
    ),
    "afmoe": (
        GEMMA | {"num_hidden_layers": 5, "global_attn_every_n_layers": 4},
        [(sliding(4, 256, 512), "0 1 2 4"), (full(4, 256), "3")],
    ),
    "gpt-oss": (
        {
            "num_hidden_layers": 2,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "layer_types": [S, F],
            "sliding_window": 128,
        },
        [(sliding(8, 64, 128), "0"), (full(8, 64), "1")],
    ),
    "mimo-v2": (
        {
            "model_type": "mimo_v2_flash",
            "num_hidden_layers": 2,
            "num_key_value_heads": 4,
            "head_dim": 192,
            "v_head_dim": 128,
            "layer_types": [F, S],
            "sliding_window": 129,
        },
        [(full(4, 192, head_size_v=128), "0"), (sliding(8, 192, 129, head_size_v=128), "1")],
    ),
    "mimo-v2, as published": (
        {
            "num_hidden_layers": 2,
            "num_key_value_heads": 4,
            "head_dim": 192,
            "v_head_dim": 128,
            "swa_num_key_value_heads": 8,
            "swa_head_dim": 192,
            "swa_v_head_dim": 64,
            "hybrid_layer_pattern": [0, 1],
            "sliding_window": 128,
        },
        [(full(4, 192, head_size_v=128), "0"), (sliding(8, 192, 128, head_size_v=64), "1")],
    ),
    "gpt-neo": (
        {"num_layers": 2, "attention_layers": ["global", "local"], "window_size": 256},
        [(full(7, 96), "0"), (sliding(7, 96, 256), "1")],
    ),
    "llama4": (
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "attention_chunk_size": 8192,
            "no_rope_layers": [1, 1, 1, 0],
        },
        [
            (
                partial(ChunkedLocalAttentionSpec, 16, 8, 128, BF16, attention_chunk_size=8192),
                "0 1 2",
            ),
            (full(8, 128), "3"),
        ],
    ),
    "openelm, heads of each layer": (
        {"num_hidden_layers": 3, "num_kv_heads": [2, 2, 3], "head_dim": 64},
        [(full(2, 64), "0 1"), (full(3, 64), "2")],
    ),
    "deepseek-v3": (LATENT, [(latent(576), "0 1")]),
    "deepseek-v3.2": (
        LATENT | {"layer_types": ["indexed_attention"] * 2, "index_head_dim": 128},
        [(latent(576), "0 1"), (latent(128), "0.indexer 1.indexer")],
    ),
    "longcat": (
        {
            "model_type": "longcat_flash",
            "num_layers": 1,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
        },
        [(latent(576), "0 1")],
    ),
    "jamba": (
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 8,
            "hidden_size": 4096,
            "attn_layer_period": 8,
            "attn_layer_offset": 1,
            "mamba_d_state": 16,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
        },
        [(state((8192, 4), (8192, 16)), "0 2"), (full(8, 96), "1")],
    ),
    "mamba": (
        {
            "model_type": "mamba",
            "num_hidden_layers": 1,
            "hidden_size": 768,
            "expand": 2,
            "state_size": 16,
            "conv_kernel": 4,
        },
        [(state((1536, 4), (1536, 16)), "0")],
    ),
    "mamba2": (
        {
            "model_type": "mamba2",
            "num_hidden_layers": 1,
            "num_heads": 128,
            "head_dim": 64,
            "n_groups": 8,
            "state_size": 128,
            "conv_kernel": 4,
        },
        [(state((10240, 4), (128, 64, 128)), "0")],
    ),
    "bamba": (
        MAMBA2 | {"num_hidden_layers": 2, "attn_layer_indices": [1], "num_key_value_heads": 8},
        [(state((8704, 4), (128, 64, 256)), "0"), (full(8, 96), "1")],
    ),
    "granite hybrid": (
        MAMBA2
        | {
            "mamba_d_head": "auto",
            "mamba_expand": 2,
            "hidden_size": 4096,
            "layer_types": ["mamba", "attention"],
            "num_key_value_heads": 8,
        },
        [(state((8704, 4), (128, 64, 256)), "0"), (full(8, 96), "1")],
    ),
    "nemotron-h": (
        {
            "hybrid_override_pattern": "ME*-",
            "num_key_value_heads": 8,
            "head_dim": 128,
            "mamba_num_heads": 128,
            "mamba_head_dim": 64,
            "n_groups": 8,
            "ssm_state_size": 128,
            "conv_kernel": 4,
            "mamba_ssm_cache_dtype": "float32",
        },
        [(state((10240, 4), (128, 64, 128), dtype=(BF16, "float32")), "0"), (full(8, 128), "2")],
    ),
    "qwen3-next": (
        DELTA
        | {
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "full_attention_interval": 4,
        },
        [(state((8192, 4), (32, 128, 128)), "0 1 2"), (full(2, 256), "3")],
    ),
    "kimi linear": (
        LATENT
        | {
            "layer_types": [L, F],
            "linear_num_heads": 32,
            "linear_head_dim": 128,
            "linear_conv_kernel_dim": 4,
        },
        [(state((12288, 4), (32, 128, 128)), "0"), (latent(576), "1")],
    ),
    "kimi linear, as published": (
        LATENT
        | {
            "linear_attn_config": {
                "full_attn_layers": [2],
                "kda_layers": [1],
                "num_heads": 32,
                "head_dim": 128,
                "short_conv_kernel_size": 4,
            }
        },
        [(state((12288, 4), (32, 128, 128)), "0"), (latent(576), "1")],
    ),
    "falcon-h1": (
        MAMBA2 | {"num_hidden_layers": 1, "num_key_value_heads": 8, "mamba_d_ssm": 8192},
        [(full(8, 96), "0"), (state((8704, 4), (128, 64, 256)), "0.state")],
    ),
    "zamba2": (
        {
            "num_hidden_layers": 2,
            "num_key_value_heads": 32,
            "hybrid_layer_ids": [1],
            "n_mamba_heads": 8,
            "mamba_headdim": 640,
            "mamba_ngroups": 1,
            "mamba_d_state": 64,
            "mamba_d_conv": 4,
        },
        [(state((5248, 4), (8, 640, 64)), "0 1.state"), (full(32, 96), "1")],
    ),
    "lfm2": (
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 8,
            "full_attn_idxs": [2],
            "hidden_size": 2560,
            "conv_L_cache": 3,
        },
        [(state((2560, 3)), "0 1"), (full(8, 96), "2")],
    ),
    "minimax": (
        {
            "model_type": "minimax_text_01",
            "num_hidden_layers": 2,
            "attn_type_list": [0, 1],
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        [(state((64, 128, 128)), "0"), (full(8, 128), "1")],
    ),
    "recurrent gemma": (
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "block_types": ["recurrent", "recurrent", "attention"],
            "attention_window_size": 2048,
            "lru_width": 2560,
            "conv1d_width": 4,
        },
        [(state((2560, 3), (2560,)), "0 1 3"), (sliding(1, 256, 2048), "2")],
    ),
    "whisper": (
        {"is_encoder_decoder": True, "num_hidden_layers": 9, "decoder_layers": 2},
        [(full(7, 96), "0 1"), (partial(CrossAttentionSpec, 16, 7, 96, BF16), "0.cross 1.cross")],
    ),
    "llama 3.2 vision": (
        {"num_hidden_layers": 3, "num_key_value_heads": 8, "cross_attention_layers": [1]},
        [(full(8, 96), "0 2"), (partial(CrossAttentionSpec, 16, 8, 96, BF16), "1")],
    ),
}
