"""The ops for TPUs, by the names of their references."""

from pagedkv.ops._pallas._pages import (
    copy_pages,
    gather_into,
    gather_pages,
    gather_through,
    pages_to_rows,
    rows_to_pages,
    scatter_pages,
)
from pagedkv.ops._pallas._write_kv import write_kv

__all__ = [
    "copy_pages",
    "gather_into",
    "gather_pages",
    "gather_through",
    "pages_to_rows",
    "rows_to_pages",
    "scatter_pages",
    "write_kv",
]
