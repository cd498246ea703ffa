"""Small caches, and what their writes do as loops over NumPy arrays."""

import jax.numpy as jnp
import numpy as np
from pagedkv import PagedAttentionCacheMetaData
from pagedkv.cache import PartitionAxis


def make_metadata(**changes):
    fields = {
        "partition_axis": PartitionAxis(),
        "dtype": jnp.float32,
        "batch_size": 3,
        "num_hidden_layers": 2,
        "num_pages_per_layer": 9,
        "num_pages_per_sequence": 4,
        "max_sequences": 16,
        "page_size": 4,
        "num_kv_heads": 4,
        "kv_head_dim_size": 8,
        "hbm_utilization": 0.5,
        "hbm_bytes": 0,
    }
    return PagedAttentionCacheMetaData(**{**fields, **changes})


def filled(view):
    """With another number in every place of each page tensor, so that each write shows."""
    numbers = -1 - np.arange(view.key_pages.size, dtype=np.float32).reshape(view.key_pages.shape)
    return view.replace(key_pages=jnp.asarray(numbers), value_pages=jnp.asarray(numbers - 10**6))


def written_prefill(pages, rows, length, table):
    """``pages`` ``[kv_heads, pages, page_size, head_dim]`` after a prompt of ``length`` tokens."""
    pages = pages.copy()
    page_size = pages.shape[2]
    for token, row in enumerate(rows):
        page = token // page_size
        if page * page_size < length and page < len(table) and 0 <= table[page] < pages.shape[1]:
            pages[:, table[page], token % page_size] = row
    return pages


def written_generate(pages, rows, positions, tables):
    """``pages`` after one new token of each row."""
    pages = pages.copy()
    page_size = pages.shape[2]
    for row, position, table in zip(rows, positions, tables, strict=True):
        page = position // page_size
        if 0 <= page < len(table) and 0 <= table[page] < pages.shape[1]:
            pages[:, table[page], position % page_size] = row
    return pages


def random_rows(rng, num_tokens, kv_heads, head_dim):
    """Keys and values, float32 that bfloat16 has too."""
    shape = (2, num_tokens, kv_heads, head_dim)
    return rng.integers(1, 128, shape).astype(np.float32)
