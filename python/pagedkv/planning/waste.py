"""Bytes of a longest request that hold nothing it needs, and what they are spent on."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pagedkv._core import AttentionSpec, ChunkedLocalAttentionSpec, SlidingWindowSpec
from pagedkv.planning.groups import DeviceLayer, PlannedGroup
from pagedkv.planning.sizes import ceil_div
from pagedkv.planning.stored import Storage


@dataclass(frozen=True)
class Waste:
    """Bytes on a device, of one longest request; no byte counts twice.

    Attributes:
      partial_pages: Half of the last page of each group that keeps tokens: what is expected empty.
      beyond_window: Pages before the window or chunk, for the tokens of a step that is computed.
      page_unification: What is added so that a page id has the same bytes in every group.
      layout_padding: Heads and elements that the layout rounds up to.
      copies: K/V that several devices of ``tp`` keep, beyond an even share.
    """

    partial_pages: int
    beyond_window: int
    page_unification: int
    layout_padding: int
    copies: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


def waste_of_group(group: PlannedGroup, num_pages: int, max_model_len: int, tp: int) -> Waste:
    """The waste of ``num_pages`` pages, those that a longest request holds of a group."""
    needed = num_pages
    if group.window is not None:
        needed = min(num_pages, ceil_div(min(group.window, max_model_len), group.page_size))
    padding = sum(layer.padding for layer in group.bytes_of_layers)
    share = ceil_div(group.whole_bytes, tp)
    has_last_page = group.has_tokens and needed > 0
    return Waste(
        partial_pages=share // 2 if has_last_page else 0,
        beyond_window=(num_pages - needed) * group.page_bytes,
        page_unification=needed * (group.page_bytes - group.stored_bytes),
        layout_padding=needed * padding,
        copies=needed * (group.stored_bytes - padding - share),
    )


def total_waste(wastes: Sequence[Waste]) -> Waste:
    """The sum, item by item."""
    return Waste(*map(sum, zip(*map(dataclasses.astuple, wastes), strict=True)))


def single_type_bytes(
    layers: Sequence[DeviceLayer],
    storage: Storage,
    *,
    max_model_len: int,
    max_encoder_tokens: int,
) -> int | None:
    """Bytes on a device of a longest request, if all its tokens stay in every attention layer.

    That is what a manager needs that knows one kind of group. States count as they are. None for
    models without windows and chunks, of which it is no other way to keep them.
    """
    if not any(
        isinstance(layer.spec, SlidingWindowSpec | ChunkedLocalAttentionSpec) for layer in layers
    ):
        return None
    total = 0
    for layer in layers:
        page_size = layer.spec.page_size
        num_pages = 1
        if isinstance(layer.spec, AttentionSpec):
            is_cross = layer.spec.kind == "cross_attention"
            num_tokens = max_encoder_tokens if is_cross else max_model_len
            num_pages = ceil_div(num_tokens, page_size)
        total += num_pages * storage.page_bytes(layer.spec, page_size).total
    return total
