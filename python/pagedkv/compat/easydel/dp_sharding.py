"""`easydel.inference.esurge.core.dp_sharding`: which data-parallel shard a page is in.

Each shard has a contiguous range of page ids; page 0, the null page, is in the range of shard 0.
"""


def usable_pages_count(num_pages: int) -> int:
    """Returns how many pages can be handed out: all but the null page."""
    return max(0, num_pages - 1)


def pages_per_dp_shard(num_pages: int, data_parallel_size: int | None) -> int | None:
    """Returns the pages of a shard; None if there is one shard, or the pages cannot be divided."""
    num_shards = data_parallel_size or 1
    if num_shards <= 1 or num_pages <= 0 or num_pages % num_shards:
        return None
    return num_pages // num_shards


def dp_shard_for_page_id(page_id: int, pages_per_shard: int, dp_size: int) -> int | None:
    """Returns the shard of a page; None for the null page, and where there are no shards."""
    if page_id <= 0 or pages_per_shard <= 0 or dp_size <= 0:
        return None
    return min(page_id // pages_per_shard, dp_size - 1)


def dp_shard_page_bounds(shard_index: int, pages_per_shard: int) -> tuple[int, int]:
    """Returns the first usable page of a shard and the one after its last."""
    begin = max(0, shard_index) * pages_per_shard
    return max(begin, 1), begin + pages_per_shard
