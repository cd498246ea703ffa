"""`easydel.inference.esurge.core.utils`: pages and their hashes."""

from pagedkv.hashing import (
    PageHash,
    PageHashWithGroupId,
    hash_page_tokens,
    hash_request_tokens,
    init_none_hash,
)
from pagedkv.pages import CachePage, FreeCachePageQueue

__all__ = [
    "CachePage",
    "FreeCachePageQueue",
    "PageHash",
    "PageHashWithGroupId",
    "hash_page_tokens",
    "hash_request_tokens",
    "init_none_hash",
]
