"""What the writes of a paged cache do, as loops over NumPy arrays."""

import numpy as np


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
