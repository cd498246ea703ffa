"""A picture of a pool as lines of text, of which each piece has a colour."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pagedkv.inspection.labels import joined, shown
from pagedkv.inspection.states import LOOKS, PageState, shares_of_cells

if TYPE_CHECKING:
    from pagedkv.inspection.picture import PoolPicture

Segment = tuple[str, str]
"""A text, and its style as `rich` writes it; "" for none."""

COLUMNS = 64
MAX_ROWS = 16
MAX_REQUESTS = 8
MAX_SHARED = 6


def draw_text(picture: "PoolPicture") -> list[Segment]:
    """The picture in at most 80 columns and some 60 lines."""
    return [
        *_counts(picture),
        *_map(picture),
        *_groups(picture),
        *_requests(picture),
        *_shared(picture),
    ]


def _counts(picture: "PoolPicture") -> Iterator[Segment]:
    yield f"{picture.num_pages:,} pages", "bold"
    yield "\n", ""
    for state, count in picture.counts.items():
        if count:
            yield f"  {LOOKS[state].character} ", LOOKS[state].colour
            yield f"{LOOKS[state].label:<14}{count:>12,}  {count / picture.num_pages:>6.1%}\n", ""


def _map(picture: "PoolPicture") -> Iterator[Segment]:
    pages_per_cell, cells = shares_of_cells(picture.states, COLUMNS * MAX_ROWS)
    unit = (
        "a page" if pages_per_cell == 1 else f"the most frequent state of {pages_per_cell:,} pages"
    )
    yield f"\npage ids (each character: {unit})\n", "dim"
    # Of equally frequent states the last one, which says more.
    most = len(PageState) - 1 - cells[:, ::-1].argmax(axis=1)
    width = len(f"{picture.num_pages:,}")
    for begin in range(0, len(most), COLUMNS):
        yield f"  {begin * pages_per_cell:>{width},} ", "dim"
        for state in most[begin : begin + COLUMNS]:
            look = LOOKS[PageState(int(state))]
            yield look.character, look.colour
        yield "\n", ""


def _groups(picture: "PoolPicture") -> Iterator[Segment]:
    if len(picture.page_sizes) < 2:
        return
    yield "\n  group  page size        cached       running        shared        pinned\n", "dim"
    by_group = picture.counts_by_group
    for group, (page_size, counts) in enumerate(zip(picture.page_sizes, by_group, strict=True)):
        numbers = "".join(f"{counts[state]:>14,}" for state in list(PageState)[2:])
        yield f"  {group:>5}{page_size:>11,}{numbers}\n", ""


def _requests(picture: "PoolPicture") -> Iterator[Segment]:
    if not picture.requests:
        return
    largest = sorted(picture.requests, key=lambda request: -request.num_pages)
    yield f"\n  {'request':<30}{'pages':>10}{'shared':>10}\n", "dim"
    for request in largest[:MAX_REQUESTS]:
        name = shown(request.request_id)
        yield f"  {name:<30}{request.num_pages:>10,}{request.num_shared:>10,}\n", ""
    if len(largest) > MAX_REQUESTS:
        yield f"  and {len(largest) - MAX_REQUESTS:,} more\n", "dim"


def _shared(picture: "PoolPicture") -> Iterator[Segment]:
    if not picture.shared:
        return
    yield f"\n  {'shared pages':>12}  by\n", "dim"
    for shared in picture.shared[:MAX_SHARED]:
        yield f"  {shared.num_pages:>12,}  ", LOOKS[PageState.SHARED].colour
        yield f"{joined(shared.request_ids)}\n", ""
    if len(picture.shared) > MAX_SHARED:
        yield f"  and {len(picture.shared) - MAX_SHARED:,} more\n", "dim"
