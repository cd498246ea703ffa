"""EasyDeL's specs against ours, live, where EasyDeL's files are at hand.

    python tests/peers/easydel_specs.py EASYDEL

EASYDEL is a folder with the `easydel` package (a checkout, or the unpacked wheel of easydel 0.3.0),
or that wheel. Prints how many random cases agreed, or the first that did not.
"""

import argparse
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pagedkv
from easydel_core import AttnMaskType, load

DTYPES = ("float32", "bfloat16", "float16", "float8_e4m3fn", "int8")


def random_spec(rng: random.Random) -> tuple[str, dict[str, Any]]:
    page_size = rng.choice([1, 4, 16, 17, 128])
    dtype = jnp.dtype(rng.choice(DTYPES))
    kind = rng.choice(["Full", "SlidingWindow", "Chunked", "Mamba"])
    if kind == "Mamba":
        shapes = tuple(
            tuple(rng.randint(1, 64) for _ in range(rng.randint(1, 3)))
            for _ in range(rng.randint(1, 3))
        )
        padded = rng.choice([None, 10**9])
        return "MambaSpec", {
            "page_size": page_size,
            "shapes": shapes,
            "dtype": dtype,
            "page_size_padded": padded,
        }
    arguments = {
        "page_size": page_size,
        "num_kv_heads": rng.randint(1, 16),
        "head_size": rng.choice([1, 64, 80, 128, 256]),
        "dtype": dtype,
        "use_mla": rng.random() < 0.3 and kind != "SlidingWindow",
    }
    if kind == "Full":
        arguments["sliding_window"] = rng.choice([None, 128, 512])
        arguments["attention_chunk_size"] = rng.choice([None, 128, 512])
        return "FullAttentionSpec", arguments
    if kind == "SlidingWindow":
        return "SlidingWindowSpec", arguments | {"sliding_window": rng.choice([1, 128, 4096])}
    return "ChunkedLocalAttentionSpec", arguments | {
        "attention_chunk_size": rng.choice([1, 128, 8192])
    }


def facts(spec: Any, limits: dict[str, int]) -> tuple[Any, ...]:
    return (spec.type_id, spec.page_size_bytes, spec.max_memory_usage_bytes(**limits))


def outcome(run: Any) -> Any:
    """What `run` gives, or that it refuses."""
    try:
        return run()
    except (AssertionError, ValueError, IndexError):
        return "refused"


def compare_specs(theirs: Any, rng: random.Random) -> None:
    name, arguments = random_spec(rng)
    limits = {
        "max_model_len": rng.randint(0, 20_000),
        "max_num_batched_tokens": rng.randint(0, 9_000),
    }
    their_spec, our_spec = (getattr(lib, name)(**arguments) for lib in (theirs, pagedkv))
    case = (name, arguments, limits)
    assert facts(their_spec, limits) == facts(our_spec, limits), case
    other = arguments | {
        key: rng.choice([arguments[key], 128, 512, None])
        for key in ("sliding_window", "attention_chunk_size")
        if name == "FullAttentionSpec"
    }
    merged = [
        outcome(
            lambda lib=lib: facts(
                getattr(lib, name).merge(
                    [getattr(lib, name)(**arguments), getattr(lib, name)(**other)]
                ),
                limits,
            )
        )
        for lib in (theirs, pagedkv)
    ]
    assert merged[0] == merged[1], ("merge", case, other, merged)


def random_config(rng: random.Random) -> SimpleNamespace:
    num_layers = rng.randint(0, 8)
    kinds = [rng.choice(list(AttnMaskType)) for _ in range(num_layers)]
    window, chunk = rng.choice([None, 64]), rng.choice([None, 128])
    details = {
        i: SimpleNamespace(mask_type=kind, size=window, chunks=chunk)
        for i, kind in enumerate(kinds)
    }
    config = SimpleNamespace(get_mask_details=lambda: details)
    if rng.random() < 0.7:
        config.layer_types = [
            {"FULL": "full_attention", "SLIDING": "sliding_attention"}.get(k.name, "chunked")
            for k in kinds
        ]
    for field, values in {
        "num_kv_heads": [None, 2, [1, 2, 4, 8, 1, 2, 4, 8], [3], []],
        "num_key_value_heads": [None, 4, (1, 2, 4), "x"],
        "global_head_dim": [None, 512, 0],
        "attention_k_eq_v": [False, True],
        "num_global_key_value_heads": [None, 1],
    }.items():
        if rng.random() < 0.6:
            setattr(config, field, rng.choice(values))
    return config


def group_facts(groups: Any, limits: dict[str, int]) -> Any:
    return [(g.layer_names, facts(g.kv_cache_spec, limits)) for g in groups]


def compare_configs(theirs: Any, rng: random.Random) -> None:
    config = random_config(rng)
    use_mla = rng.random() < 0.3
    limits = {"max_model_len": 4096, "max_num_batched_tokens": 512}
    results = [
        outcome(
            lambda lib=lib: group_facts(
                lib.create_kv_cache_specs_from_config(
                    config, 16, 8, 128, jnp.bfloat16, use_mla=use_mla
                ),
                limits,
            )
        )
        for lib in (theirs, pagedkv)
    ]
    assert results[0] == results[1], (vars(config), use_mla, results)


def compare_budgets(theirs: Any, rng: random.Random) -> None:
    chosen = [random_spec(rng) for _ in range(rng.randint(0, 3))]
    arguments = {
        "num_pages": rng.randint(0, 5_000),
        "max_model_len": rng.randint(0, 20_000),
        "max_num_batched_tokens": rng.randint(0, 20_000),
        "data_parallel_size": rng.choice([1, 1, 2, 4, 5]),
    }
    results = []
    for lib in (theirs, pagedkv):
        groups = [lib.CacheGroupSpec(getattr(lib, name)(**spec)) for name, spec in chosen]
        budget = lib.estimate_runtime_page_budget(kv_cache_groups=groups, **arguments)
        results.append(vars(budget))
    assert results[0] == results[1], (chosen, arguments, results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("easydel", type=Path)
    parser.add_argument("--cases", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    theirs = load(options.easydel).interface
    generator = random.Random(options.seed)
    for compare in (compare_specs, compare_configs, compare_budgets):
        for _ in range(options.cases):
            compare(theirs, generator)
        print(f"{compare.__name__}: {options.cases} cases agree")


if __name__ == "__main__":
    main()
