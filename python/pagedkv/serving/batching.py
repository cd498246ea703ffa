"""Lays out the next tokens of several requests as the arrays of one model step."""

from collections.abc import Sequence

import numpy as np

from pagedkv import Request

from .paged_model import IntArray, StepInputs


def lay_out(
    requests: Sequence[Request],
    counts: IntArray,
    *,
    slots: Sequence[IntArray],
    page_tables: Sequence[IntArray],
    num_tokens: int,
    num_requests: int,
) -> StepInputs:
    """Puts the next ``counts[i]`` tokens of each request one after the other.

    Args:
      requests: Not yet committed: their next tokens are those after ``num_computed_tokens``.
      counts: int32 ``[n]``, each at least 1.
      slots: int32 ``[sum(counts)]`` for each group, as ``CacheManager.slot_mapping`` gives them.
      page_tables: int32 ``[n, width]`` for each group, as ``CacheManager.page_table`` gives them.
      num_tokens, num_requests: What the arrays are padded to.

    Returns:
      The inputs, in fresh arrays.
    """
    first = [request.num_computed_tokens for request in requests]
    spans = [np.arange(begin, begin + count) for begin, count in zip(first, counts, strict=True)]
    tokens = [request.tokens[span] for request, span in zip(requests, spans, strict=True)]
    ends = np.cumsum(counts)
    return StepInputs(
        tokens=_pad(np.concatenate(tokens), num_tokens, 0),
        positions=_pad(np.concatenate(spans), num_tokens, 0),
        slot_mapping=np.stack([_pad(group, num_tokens, -1) for group in slots]),
        page_table=np.stack([_pad(group, num_requests, 0) for group in page_tables]),
        query_starts=_pad(np.concatenate([[0], ends]), num_requests + 1, ends[-1]),
        context_lens=_pad(np.array(first) + counts, num_requests, 0),
    )


def _pad(values: IntArray, size: int, padding: int) -> IntArray:
    array = np.full((size, *values.shape[1:]), padding, np.int32)
    array[: len(values)] = values
    return array
