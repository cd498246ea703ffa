"""`PoolPicture`: a pool to look at, as numbers, text, SVG and HTML."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pagedkv._core import CacheManager
from pagedkv.inspection.sharing import (
    RequestPages,
    SharedPages,
    pages_of_requests,
    shared_pages,
)
from pagedkv.inspection.states import PageState, states_of
from pagedkv.inspection.svg import draw_svg
from pagedkv.inspection.text import Segment, draw_text

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True, repr=False, eq=False)
class PoolPicture:
    """What a manager held when it was looked at.

    ``print`` shows it as text, `rich` in colours, and a notebook as SVG: pages by state and group, a map
    of all pages in the order of their ids, the requests that hold most, and who shares what with
    whom. Pools of more pages than the map has cells are drawn with several pages a cell.

    Attributes:
      states: The `PageState` of each page, uint8, shape ``[num_pages]``.
      groups: The group of each page, int32, shape ``[num_pages]``; -1 of pages without content.
      page_sizes: Tokens of a page, of each group.
      requests: What each request holds, in the order of the manager.
      shared: Pages that several requests hold, by who they are, those with most pages first.

    Example:
      >>> spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=64, dtype="bfloat16")
      >>> manager = CacheManager(8, [CacheGroupSpec(spec)], max_model_len=64)
      >>> first, second = Request("first", range(12)), Request("second", range(13))
      >>> manager.allocate(first, 12) and not manager.commit(first, 12)
      True
      >>> manager.allocate(second, 1, num_cached_tokens=manager.match(second))
      True
      >>> picture = manager.inspect()
      >>> {state.name: count for state, count in picture.counts.items() if count}
      {'NULL': 1, 'EMPTY': 3, 'RUNNING': 1, 'SHARED': 3}
      >>> picture.shared
      [SharedPages(request_ids=('first', 'second'), num_pages=3, first_page=1)]
    """

    states: NDArray[np.uint8]
    groups: NDArray[np.int32]
    page_sizes: tuple[int, ...]
    requests: list[RequestPages]
    shared: list[SharedPages]

    @classmethod
    def of(cls, manager: CacheManager) -> "PoolPicture":
        """Looks at a manager. O(pages)."""
        page_map = manager.page_map()
        return cls(
            states=states_of(page_map.ref_counts, page_map.num_pins, page_map.is_cached),
            groups=page_map.groups,
            page_sizes=tuple(manager.page_sizes),
            requests=pages_of_requests(page_map),
            shared=shared_pages(page_map),
        )

    @property
    def num_pages(self) -> int:
        """Pages of the pool, the null page among them."""
        return len(self.states)

    @property
    def counts(self) -> dict[PageState, int]:
        """Pages of each state."""
        counts = np.bincount(self.states, minlength=len(PageState))
        return {state: int(counts[state]) for state in PageState}

    @property
    def counts_by_group(self) -> list[dict[PageState, int]]:
        """Pages of each state, of each group. Pages without content are in none."""
        counts = []
        for group in range(len(self.page_sizes)):
            of_group = np.bincount(self.states[self.groups == group], minlength=len(PageState))
            counts.append({state: int(of_group[state]) for state in PageState})
        return counts

    def to_svg(self) -> str:
        """An SVG image, at most some 200 KB, for light and dark backgrounds."""
        return draw_svg(self)

    def _segments(self) -> list[Segment]:
        return draw_text(self)

    def __str__(self) -> str:
        return "".join(text for text, _ in self._segments()).rstrip("\n")

    def __repr__(self) -> str:
        counts = ", ".join(f"{s.name.lower()}={n}" for s, n in self.counts.items() if n)
        return f"PoolPicture({self.num_pages} pages: {counts})"

    def __rich__(self) -> "Text":
        from rich.text import Text

        text = Text()
        for part, style in self._segments():
            text.append(part, style=style)
        text.rstrip()
        return text

    def _repr_html_(self) -> str:
        return f"<div>{self.to_svg()}</div>"
