"""A picture of a pool as an SVG image.

No script, no background: the colours of the text and of the cells can be read on white and on black. Each
state is one path, so that thousands of cells are a few kilobytes.
"""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from pagedkv.inspection.labels import joined, shown
from pagedkv.inspection.states import LOOKS, PageState, shares_of_cells

if TYPE_CHECKING:
    from pagedkv.inspection.picture import PoolPicture

WIDTH = 720
MAX_CELLS = 4096  # one page each
MAX_MIXED_CELLS = 1024  # of several pages, each of up to six states
COLUMNS = 64
MAX_REQUESTS = 8
MAX_SHARED = 6
_PITCH, _CELL = 11, 9.5
_LINE = 18
_BAR_X, _BAR = 205, 300  # of the bars of requests
_TEXT = "#767676"  # contrast of at least 4.5 with white and with black


def draw_svg(picture: "PoolPicture") -> str:
    """The image: an ``svg`` element with its namespace."""
    parts, y = [], 0
    for draw in (_summary, _map, _requests, _shared):
        part, height = draw(picture)
        if height:
            parts.append(f'<g transform="translate(8 {y + 8})">{part}</g>')
            y += height + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 8}" '
        f'style="max-width:{WIDTH}px" font-family="sans-serif" font-size="12" role="img">'
        f"<title>{picture.num_pages:,} pages of a KV cache</title>{''.join(parts)}</svg>"
    )


def _summary(picture: "PoolPicture") -> tuple[str, int]:
    """A bar of all pages, and what its colours mean."""
    parts = [_text(0, 12, f"{picture.num_pages:,} pages", bold=True)]
    room = WIDTH - 16
    x, label_x, label_y = 0.0, 0, 44
    for state, count in picture.counts.items():
        if not count:
            continue
        width = count * room / picture.num_pages
        parts.append(_rect(x, 20, width, 14, state))
        x += width
        label = f"{LOOKS[state].label} {count:,}"
        label_width = 26 + 7 * len(label)
        if label_x + label_width > room:
            label_x, label_y = 0, label_y + _LINE
        parts.append(_rect(label_x, label_y, 10, 10, state))
        parts.append(_text(label_x + 14, label_y + 9, label))
        label_x += label_width
    return "".join(parts), label_y + 16


def _map(picture: "PoolPicture") -> tuple[str, int]:
    """All pages by their ids, from left to right and from top to bottom."""
    is_mixed = picture.num_pages > MAX_CELLS
    limit = MAX_MIXED_CELLS if is_mixed else MAX_CELLS
    pages_per_cell, cells = shares_of_cells(picture.states, limit)
    unit = "1 page" if pages_per_cell == 1 else f"{pages_per_cell:,} pages"
    tops = np.cumsum(cells, axis=1) - cells
    totals = cells.sum(axis=1)
    parts = [_text(0, 12, f"page ids from 0, a cell is {unit}")]
    for state in PageState:
        path = []
        for cell in np.flatnonzero(cells[:, state]):
            x, y = int(cell) % COLUMNS * _PITCH, int(cell) // COLUMNS * _PITCH + 20
            top = y + _CELL * tops[cell, state] / totals[cell]
            height = _CELL * cells[cell, state] / totals[cell]
            path.append(f"M{x} {top:.4g}h{_CELL}v{height:.3g}h-{_CELL}z")
        if path:
            label = f"{LOOKS[state].label}: {picture.counts[state]:,} pages"
            parts.append(
                f'<path {_fill(state)} d="{"".join(path)}"><title>{escape(label)}</title></path>'
            )
    return "".join(parts), 20 + -(-len(cells) // COLUMNS) * _PITCH


def _requests(picture: "PoolPicture") -> tuple[str, int]:
    """Bars of the requests that hold most pages: their own, and those that others hold too."""
    if not picture.requests:
        return "", 0
    largest = sorted(picture.requests, key=lambda request: -request.num_pages)
    most = max(1, largest[0].num_pages)
    rows = [_text(0, 12, f"{len(largest):,} requests hold pages; the largest")]
    y = _LINE
    for request in largest[:MAX_REQUESTS]:
        own = (request.num_pages - request.num_shared) * _BAR / most
        shared = request.num_shared * _BAR / most
        rows.append(_text(0, y + 11, shown(request.request_id)))
        rows.append(_rect(_BAR_X, y, shared, 12, PageState.SHARED))
        rows.append(_rect(_BAR_X + shared, y, own, 12, PageState.RUNNING))
        counts = f"{request.num_pages:,}, {request.num_shared:,} shared"
        rows.append(_text(_BAR_X + 8 + own + shared, y + 11, counts))
        y += _LINE
    return "".join(rows), y


def _shared(picture: "PoolPicture") -> tuple[str, int]:
    """Pages that several requests hold, and those requests."""
    if not picture.shared:
        return "", 0
    rows = [_text(0, 12, "pages that several requests hold")]
    y = _LINE
    for shared in picture.shared[:MAX_SHARED]:
        rows.append(_rect(0, y, 12, 12, PageState.SHARED))
        rows.append(_text(18, y + 11, f"{shared.num_pages:,}: {joined(shared.request_ids)}"))
        y += _LINE
    rest = len(picture.shared) - MAX_SHARED
    if rest > 0:
        rows.append(_text(18, y + 11, f"and {rest:,} more sets of requests"))
        y += _LINE
    return "".join(rows), y


def _rect(x: float, y: float, width: float, height: float, state: PageState) -> str:
    size = f'width="{width:.4g}" height="{height:.4g}"'
    return f'<rect x="{x:.5g}" y="{y:.5g}" {size} {_fill(state)}/>'


def _fill(state: PageState) -> str:
    look = LOOKS[state]
    opacity = "" if look.opacity == 1 else f' fill-opacity="{look.opacity}"'
    return f'fill="{look.colour}"{opacity}'


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.5g}" y="{y:.5g}" fill="{_TEXT}"{weight}>{escape(text)}</text>'
