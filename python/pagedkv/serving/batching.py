"""Lays out the next tokens of several requests as the arrays of one model step."""

from collections.abc import Sequence

import numpy as np

from .paged_model import IntArray, StepInputs


def lay_out(
    tokens: IntArray,
    first: IntArray,
    counts: IntArray,
    *,
    slots: Sequence[IntArray],
    page_tables: Sequence[IntArray],
    num_tokens: int,
    num_requests: int,
) -> StepInputs:
    """Pads the next ``counts[i]`` tokens of each request, which lie back to back, and their places.

    Args:
      tokens: int32 ``[sum(counts)]``, as ``CacheManager.next_tokens`` gives them.
      first: int32 ``[n]``: the position of the first of them in each request.
      counts: int32 ``[n]``, each at least 1.
      slots: int32 ``[sum(counts)]`` for each group, as ``CacheManager.slot_mapping`` gives them.
      page_tables: int32 ``[n, width]`` for each group, as ``CacheManager.page_table`` gives them.
      num_tokens, num_requests: What the arrays are padded to.

    Returns:
      The inputs, in fresh arrays.
    """
    ends = np.cumsum(counts)
    positions = np.arange(len(tokens)) + np.repeat(first - (ends - counts), counts)
    return StepInputs(
        tokens=_pad(tokens, num_tokens, 0),
        positions=_pad(positions, num_tokens, 0),
        slot_mapping=np.stack([_pad(group, num_tokens, -1) for group in slots]),
        page_table=np.stack([_pad(group, num_requests, 0) for group in page_tables]),
        query_starts=_pad(np.concatenate([[0], ends]), num_requests + 1, ends[-1]),
        context_lens=_pad(first + counts, num_requests, 0),
    )


def _pad(values: IntArray, size: int, padding: int) -> IntArray:
    array = np.full((size, *values.shape[1:]), padding, np.int32)
    array[: len(values)] = values
    return array
