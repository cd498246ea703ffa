"""How many longest requests fit in a pool."""

import pagedkv
import pytest
from pagedkv import (
    CacheGroupSpec,
    CrossAttentionSpec,
    FullAttentionSpec,
    RuntimePageBudgetEstimate,
    estimate_runtime_page_budget,
)
from spec_golden import BUDGETS, SPECS

TYPES = {
    "full": "FullAttentionSpec",
    "sliding": "SlidingWindowSpec",
    "mamba": "MambaSpec",
}


def first_of(kind):
    arguments = next(arguments for name, arguments, _ in SPECS if name == TYPES[kind])
    return getattr(pagedkv, TYPES[kind])(*arguments)


@pytest.mark.parametrize(("groups", "arguments", "expected"), BUDGETS)
def test_agrees_with_easydel(groups, arguments, expected):
    num_pages, max_model_len, max_num_batched_tokens, data_parallel_size = arguments
    estimate = estimate_runtime_page_budget(
        num_pages=num_pages,
        kv_cache_groups=[CacheGroupSpec(first_of(name)) for name in groups],
        max_model_len=max_model_len,
        max_num_batched_tokens=max_num_batched_tokens,
        data_parallel_size=data_parallel_size,
    )
    assert estimate == RuntimePageBudgetEstimate(*expected)


def test_counts_the_pages_of_an_encoder():
    full = FullAttentionSpec(16, 1, 64, "int8")
    cross = CrossAttentionSpec(16, 1, 64, "int8")
    estimate = estimate_runtime_page_budget(
        num_pages=301,
        kv_cache_groups=[CacheGroupSpec(full), CacheGroupSpec(cross)],
        max_model_len=448,
        max_num_batched_tokens=448,
        max_encoder_tokens=1500,
    )
    assert estimate.per_group_pages == (28, 94)
    assert estimate.max_num_seqs == 2
