"""What a page can be, and how it is drawn."""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class PageState(enum.IntEnum):
    """The state of a page. Of several that hold, the last one here."""

    NULL = 0
    """Page 0, which nobody gets."""
    EMPTY = 1
    """Free, without content."""
    CACHED = 2
    """Free, with content that requests can find."""
    RUNNING = 3
    """Held by one request."""
    SHARED = 4
    """Held by several requests."""
    PINNED = 5
    """Held by a pin, whoever else holds it."""


@dataclass(frozen=True)
class Look:
    """How pages of a state are drawn.

    Attributes:
      label: For the reader.
      character: In text; tells states apart without colours.
      colour: Of Okabe and Ito's palette, for eyes that see fewer colours.
      opacity: Of the colour, so that empty pages recede on light and dark backgrounds.
    """

    label: str
    character: str
    colour: str
    opacity: float = 1.0


LOOKS = {
    PageState.NULL: Look("null", "x", "#767676"),
    PageState.EMPTY: Look("free", ".", "#999999", 0.3),
    PageState.CACHED: Look("free, cached", "o", "#56B4E9"),
    PageState.RUNNING: Look("running", "#", "#0072B2"),
    PageState.SHARED: Look("shared", "=", "#009E73"),
    PageState.PINNED: Look("pinned", "P", "#D55E00"),
}


def states_of(
    ref_counts: NDArray[np.int32], num_pins: NDArray[np.int32], is_cached: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """The `PageState` of each page, uint8, shape ``[num_pages]``."""
    states = np.full(len(ref_counts), PageState.EMPTY, np.uint8)
    states[is_cached != 0] = PageState.CACHED
    states[ref_counts == 1] = PageState.RUNNING
    states[ref_counts > 1] = PageState.SHARED
    states[num_pins > 0] = PageState.PINNED
    states[0] = PageState.NULL
    return states


def shares_of_cells(states: NDArray[np.uint8], max_cells: int) -> tuple[int, NDArray[np.int64]]:
    """Cuts the pages into at most ``max_cells`` cells of equally many, in the order of their ids.

    Returns:
      Pages of a cell, and how many of each state it has, int64, shape ``[cells, states]``. The last
      cell may have fewer pages.
    """
    pages_per_cell = max(1, -(-len(states) // max_cells))
    num_cells = -(-len(states) // pages_per_cell)
    cells = np.arange(len(states), dtype=np.int64) // pages_per_cell
    counts = np.bincount(cells * len(PageState) + states, minlength=num_cells * len(PageState))
    return pages_per_cell, counts.reshape(num_cells, len(PageState))
