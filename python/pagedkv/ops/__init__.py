"""Ops on pages inside `jax.jit`, in place where the pool is donated."""

from pagedkv.ops._gather_pages import PageGather, gather_pages
from pagedkv.ops._local_ids import local_ids
from pagedkv.ops._paged_attention import PagedAttention, paged_attention
from pagedkv.ops._register import register_targets
from pagedkv.ops._write_kv import KVWrite, write_kv

__all__ = [
    "KVWrite",
    "PageGather",
    "PagedAttention",
    "gather_pages",
    "local_ids",
    "paged_attention",
    "register_targets",
    "write_kv",
]
