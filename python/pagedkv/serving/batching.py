"""Packs pieces of several requests into the rectangular arrays of one model step."""

from collections.abc import Sequence

import numpy as np

from pagedkv import Request

from .paged_llama import IntArray, StepInputs


def bucket(size: int, limit: int) -> int:
    """Returns the least of ``limit, limit // 4, limit // 16, ...`` that holds ``size``.

    Few sizes mean few programs to compile.
    """
    while limit // 4 >= size:
        limit //= 4
    return limit


def pack(
    requests: Sequence[Request],
    counts: IntArray,
    *,
    slots: IntArray,
    page_table: IntArray,
    row_tokens: int,
    num_rows: int,
    max_pages: int,
) -> tuple[StepInputs, IntArray]:
    """Lays out the next ``counts[i]`` tokens of each request, ``row_tokens`` to a row.

    Args:
      requests: Not yet committed: their next tokens are those after ``num_computed_tokens``.
      counts: int32 ``[n]``, each at least 1.
      slots: int32 ``[sum(counts)]``, as ``CacheManager.slot_mapping`` gives them.
      page_table: int32 ``[n, width]``, as ``CacheManager.page_table`` gives it.
      row_tokens, num_rows: The rectangle that they are to fit in.
      max_pages: Widest page table that there will ever be.

    Returns:
      The inputs, in fresh arrays, and for each request the row that holds the last of its tokens.
    """
    rows_each = -(-counts // row_tokens)
    ends = np.cumsum(rows_each)
    owner = np.repeat(np.arange(len(requests)), rows_each)
    offset = (np.arange(len(owner)) - (ends - rows_each)[owner]) * row_tokens
    lengths = np.minimum(row_tokens, counts[owner] - offset)

    num_pages = bucket(page_table.shape[1], max_pages)
    used = np.zeros((num_rows, row_tokens), bool)
    used[: len(owner)] = np.arange(row_tokens) < lengths[:, None]

    def lay_out(values: IntArray, padding: int) -> IntArray:
        array = np.full(used.shape, padding, np.int32)
        array[used] = values
        return array

    first = [request.num_computed_tokens for request in requests]
    spans = [np.arange(begin, begin + count) for begin, count in zip(first, counts, strict=True)]
    tokens = [request.tokens[span] for request, span in zip(requests, spans, strict=True)]
    inputs = StepInputs(
        tokens=lay_out(np.concatenate(tokens), 0),
        positions=lay_out(np.concatenate(spans), 0),
        slot_mapping=lay_out(slots, -1),
        page_table=np.zeros((num_rows, num_pages), np.int32),
        last=np.zeros(num_rows, np.int32),
    )
    inputs.page_table[: len(owner), : page_table.shape[1]] = page_table[owner]
    inputs.last[: len(owner)] = lengths - 1
    return inputs, ends - 1
