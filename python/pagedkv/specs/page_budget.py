"""How many requests of the longest kind fit in a pool at a time.

The estimate, its names and its rounding are EasyDeL's; the pages a request needs are those of the
specs (`CacheSpec.max_memory_usage_bytes`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pagedkv._core import CacheGroupSpec


@dataclass(frozen=True)
class RuntimePageBudgetEstimate:
    """What `estimate_runtime_page_budget` found."""

    pages_per_request: int
    """Page ids one longest request holds at most at a time, all groups together."""
    max_num_seqs: int
    """Longest requests that fit at a time; 1 even if none does."""
    usable_pages: int
    """Pages of the pool without the null page."""
    per_group_pages: tuple[int, ...]
    """`pages_per_request` by group; each at least 1."""


def estimate_runtime_page_budget(
    *,
    num_pages: int,
    kv_cache_groups: Sequence[CacheGroupSpec],
    max_model_len: int,
    max_num_batched_tokens: int,
    data_parallel_size: int = 1,
    max_encoder_tokens: int = 0,
) -> RuntimePageBudgetEstimate:
    """Estimates how many longest requests fit in a pool that all groups share.

    A request lives in one data-parallel shard, so that what is left over in a shard is lost.

    Args:
      num_pages: Pages of the pool, the null page included.
      kv_cache_groups: What the model keeps. Of an empty list, each usable page is taken for a
        request.
      max_model_len: Tokens of the longest request; taken as at least 1.
      max_num_batched_tokens: Tokens the largest step computes; taken as at least 1 and at most
        ``max_model_len``.
      data_parallel_size: Shards of the pool. Where they do not divide ``num_pages``, the pool
        counts as one.
      max_encoder_tokens: Tokens of the longest encoder input, for cross attention.

    Example:
        >>> from pagedkv import CacheGroupSpec, FullAttentionSpec
        >>> groups = [CacheGroupSpec(FullAttentionSpec(16, 8, 128, "bfloat16"))]
        >>> estimate_runtime_page_budget(
        ...     num_pages=1025, kv_cache_groups=groups, max_model_len=4096, max_num_batched_tokens=512
        ... ).max_num_seqs
        4
    """
    usable_pages = max(0, num_pages - 1)
    if not kv_cache_groups:
        return RuntimePageBudgetEstimate(0, max(1, usable_pages), usable_pages, ())
    max_model_len = max(1, max_model_len)
    max_num_batched_tokens = max(1, min(max_num_batched_tokens, max_model_len))
    per_group_pages = tuple(
        max(1, _max_pages(group, max_model_len, max_num_batched_tokens, max_encoder_tokens))
        for group in kv_cache_groups
    )
    pages_per_request = sum(per_group_pages)
    num_requests = sum(
        shard_pages // pages_per_request
        for shard_pages in _usable_pages_of_shards(num_pages, data_parallel_size)
    )
    return RuntimePageBudgetEstimate(
        pages_per_request, max(1, num_requests), usable_pages, per_group_pages
    )


def _max_pages(
    group: CacheGroupSpec, max_model_len: int, max_num_batched_tokens: int, max_encoder_tokens: int
) -> int:
    spec = group.kv_cache_spec
    num_bytes = spec.max_memory_usage_bytes(
        max_model_len=max_model_len,
        max_num_batched_tokens=max_num_batched_tokens,
        max_encoder_tokens=max_encoder_tokens,
    )
    return num_bytes // spec.page_size_bytes


def _usable_pages_of_shards(num_pages: int, data_parallel_size: int) -> list[int]:
    num_shards = max(1, data_parallel_size)
    if num_pages <= 0 or num_pages % num_shards != 0:
        return [max(0, num_pages - 1)]
    per_shard = num_pages // num_shards
    return [per_shard - 1] + [per_shard] * (num_shards - 1)
