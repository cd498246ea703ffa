"""Ops on pages inside `jax.jit`, in place where the pool is donated."""

from pagedkv.ops._register import register_targets
from pagedkv.ops.gather_pages import PageGather, gather_pages
from pagedkv.ops.write_kv import KVWrite, write_kv

__all__ = ["KVWrite", "PageGather", "gather_pages", "register_targets", "write_kv"]
