"""Values recorded from EasyDeL 0.3.0, by running its `inference/esurge/core/interface.py`.

`tests/peers/easydel_specs.py` compares with the live code, on random cases.
"""

from types import SimpleNamespace

# Type, arguments, and then: type_id, page_size_bytes, and max_memory_usage_bytes for
# max_model_len=10_000 and max_num_batched_tokens=2048.
SPECS = [
    (
        "FullAttentionSpec",
        (16, 8, 128, "bfloat16", False),
        ("full_attention_16_65536", 65536, 40960000),
    ),
    (
        "FullAttentionSpec",
        (128, 1, 576, "bfloat16", True),
        ("full_attention_128_147456", 147456, 11649024),
    ),
    (
        "FullAttentionSpec",
        (17, 3, 80, "float32", False),
        ("full_attention_17_32640", 32640, 19224960),
    ),
    (
        "FullAttentionSpec",
        (32, 4, 64, "int8", False, 512),
        ("full_attention_32_16384", 16384, 5128192),
    ),
    (
        "FullAttentionSpec",
        (1, 2, 256, "float8_e4m3fn", False, None, 8192),
        ("full_attention_1_1024", 1024, 10240000),
    ),
    (
        "SlidingWindowSpec",
        (16, 8, 128, "bfloat16", False, 512),
        ("sliding_window_512_16_65536", 65536, 10551296),
    ),
    (
        "SlidingWindowSpec",
        (16, 4, 64, "float16", False, 1),
        ("sliding_window_1_16_16384", 16384, 2113536),
    ),
    (
        "SlidingWindowSpec",
        (64, 2, 256, "float8_e5m2", False, 4096),
        ("sliding_window_4096_64_65536", 65536, 6356992),
    ),
    (
        "SlidingWindowSpec",
        (17, 1, 80, "float32", False, 100000),
        ("sliding_window_100000_17_10880", 10880, 6419200),
    ),
    (
        "ChunkedLocalAttentionSpec",
        (16, 8, 128, "bfloat16", False, 8192),
        ("local_attention_8192_16_65536", 65536, 40960000),
    ),
    (
        "ChunkedLocalAttentionSpec",
        (128, 1, 576, "bfloat16", True, 256),
        ("local_attention_256_128_147456", 147456, 2654208),
    ),
    (
        "ChunkedLocalAttentionSpec",
        (17, 3, 80, "int8", False, 1),
        ("local_attention_1_17_8160", 8160, 987360),
    ),
    (
        "MambaSpec",
        (16, ((8192, 4), (32, 128, 128)), "bfloat16"),
        ("mamba_((8192, 4), (32, 128, 128))_bfloat16", 1114112, 1114112),
    ),
    (
        "MambaSpec",
        (1, ((1536, 4), (1536, 16)), "float32"),
        ("mamba_((1536, 4), (1536, 16))_float32", 122880, 122880),
    ),
    ("MambaSpec", (256, ((7,),), "int8", 4096), ("mamba_((7,),)_int8", 4096, 4096)),
]

# Layers (full, sliding, chunked), fields, use_mla, and then the type_id and layer names of each
# group, for page_size=16, num_kv_heads=8, head_size=128, dtype bfloat16.
CONFIGS: list[tuple[str, dict[str, object], bool, list[tuple[str, list[str] | None]]]] = [
    ("", {}, False, [("full_attention_16_65536", None)]),
    ("FF", {}, True, [("full_attention_16_32768", ["layer.0", "layer.1"])]),
    (
        "SSSSSF",
        {"size": 512},
        False,
        [
            (
                "sliding_window_512_16_65536",
                ["layer.0", "layer.1", "layer.2", "layer.3", "layer.4"],
            ),
            ("full_attention_16_65536", ["layer.5"]),
        ],
    ),
    (
        "CCCF",
        {"chunks": 8192},
        True,
        [
            ("local_attention_8192_16_32768", ["layer.0", "layer.1", "layer.2"]),
            ("full_attention_16_32768", ["layer.3"]),
        ],
    ),
    (
        "SSF",
        {
            "size": 512,
            "global_head_dim": 512,
            "attention_k_eq_v": True,
            "num_key_value_heads": 4,
            "num_global_key_value_heads": 1,
        },
        False,
        [
            ("sliding_window_512_16_32768", ["layer.0", "layer.1"]),
            ("full_attention_16_32768", ["layer.2"]),
        ],
    ),
    (
        "SFSF",
        {"size": 128, "num_kv_heads": [1, 2, 1, 4]},
        False,
        [
            ("sliding_window_128_16_8192", ["layer.0", "layer.2"]),
            ("full_attention_16_16384", ["layer.1"]),
            ("full_attention_16_32768", ["layer.3"]),
        ],
    ),
    (
        "SC",
        {"size": 4, "chunks": 8, "num_kv_heads": [3]},
        True,
        [("sliding_window_4_16_24576", ["layer.0"]), ("local_attention_8_16_32768", ["layer.1"])],
    ),
]

# Groups (the first spec of each type above), num_pages, max_model_len, max_num_batched_tokens,
# data_parallel_size, and then: pages_per_request, max_num_seqs, usable_pages, per_group_pages.
BUDGETS = [
    ((), (100, 4096, 512, 1), (0, 99, 99, ())),
    (("full",), (1025, 4096, 512, 1), (256, 4, 1024, (256,))),
    (("full", "sliding"), (1025, 4096, 512, 1), (321, 3, 1024, (256, 65))),
    (("full", "sliding", "mamba"), (1024, 4096, 512, 4), (322, 1, 1023, (256, 65, 1))),
    (("full",), (1023, 1000, 512, 2), (63, 16, 1022, (63,))),
    (("sliding",), (1024, 300, 10000, 2), (20, 50, 1023, (20,))),
    (("mamba",), (0, 0, 0, 1), (1, 1, 0, (1,))),
    (("full",), (8, 4096, 1, 1), (256, 1, 7, (256,))),
]

_MASKS = {"F": "ATTN_MASK_FULL", "S": "ATTN_MASK_SLIDING", "C": "ATTN_MASK_CHUNK"}
_LAYER_TYPES = {"F": "full_attention", "S": "sliding_attention", "C": "chunked_attention"}


def mask_config(letters, *, size=None, chunks=None, **fields):
    """A config as EasyDeL's are: its layers by their letters."""
    details = {
        index: SimpleNamespace(mask_type=_MASKS[letter], size=size, chunks=chunks)
        for index, letter in enumerate(letters)
    }
    layer_types = [_LAYER_TYPES[letter] for letter in letters]
    return SimpleNamespace(get_mask_details=lambda: details, layer_types=layer_types, **fields)
