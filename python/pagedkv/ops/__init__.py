"""Ops on pages inside `jax.jit`, in place where the pool is donated."""

from pagedkv.layouts import KVLayout
from pagedkv.ops._copy_pages import PageCopy, copy_pages
from pagedkv.ops._gather_pages import (
    PageGather,
    PageGatherThrough,
    gather_into,
    gather_pages,
    gather_through,
)
from pagedkv.ops._local_ids import local_ids
from pagedkv.ops._move_pages import PageMove, move_pages, page_row_bytes
from pagedkv.ops._paged_attention import PagedAttention, paged_attention
from pagedkv.ops._quantized import QuantizedPages
from pagedkv.ops._register import register_targets
from pagedkv.ops._scatter_pages import PageScatter, scatter_pages
from pagedkv.ops._write_kv import KVWrite, write_kv

__all__ = [
    "KVLayout",
    "KVWrite",
    "PageCopy",
    "PageGather",
    "PageGatherThrough",
    "PageMove",
    "PageScatter",
    "PagedAttention",
    "QuantizedPages",
    "copy_pages",
    "gather_into",
    "gather_pages",
    "gather_through",
    "local_ids",
    "move_pages",
    "page_row_bytes",
    "paged_attention",
    "register_targets",
    "scatter_pages",
    "write_kv",
]
