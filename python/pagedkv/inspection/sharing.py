"""Which requests hold which pages together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagedkv._core import PageMap


@dataclass(frozen=True)
class RequestPages:
    """What one request holds.

    Attributes:
      request_id: Its id.
      num_pages: Pages that it holds, in all groups.
      num_shared: Those among them that other requests hold too.
    """

    request_id: str
    num_pages: int
    num_shared: int


@dataclass(frozen=True)
class SharedPages:
    """Pages that the same requests hold.

    Attributes:
      request_ids: Those requests, at least two, in the order of the manager.
      num_pages: How many pages.
      first_page: The lowest of their ids.
    """

    request_ids: tuple[str, ...]
    num_pages: int
    first_page: int


def pages_of_requests(page_map: PageMap) -> list[RequestPages]:
    """In the order of the manager."""
    starts, pages = page_map.held_starts, page_map.held_pages
    holders = page_map.ref_counts - page_map.num_pins
    shared_before = np.concatenate([[0], np.cumsum(holders[pages] > 1)])
    num_pages = np.diff(starts)
    num_shared = shared_before[starts[1:]] - shared_before[starts[:-1]]
    return [
        RequestPages(request_id, int(total), int(shared))
        for request_id, total, shared in zip(
            page_map.request_ids, num_pages, num_shared, strict=True
        )
    ]


def shared_pages(page_map: PageMap) -> list[SharedPages]:
    """The sets of requests that share pages, those with most pages first.

    Each request has a number of 64 bits; pages with the same sum of them have the same holders.
    O(pages held), up to sorting.
    """
    ids, starts, pages = page_map.request_ids, page_map.held_starts, page_map.held_pages
    requests = np.repeat(np.arange(len(ids), dtype=np.int64), np.diff(starts))
    is_shared = (page_map.ref_counts - page_map.num_pins)[pages] > 1
    if not is_shared.any():
        return []
    pages, requests = pages[is_shared], requests[is_shared]
    order = np.argsort(pages, kind="stable")
    pages, requests = pages[order], requests[order]
    begins = np.flatnonzero(np.r_[True, pages[1:] != pages[:-1]])
    sums = np.add.reduceat(_numbers(len(ids))[requests], begins)
    _, first, counts = np.unique(sums, return_index=True, return_counts=True)
    ends = np.r_[begins[1:], len(pages)]
    found = [
        SharedPages(
            tuple(ids[request] for request in requests[begins[i] : ends[i]]),
            int(count),
            int(pages[begins[i]]),
        )
        for i, count in zip(first, counts, strict=True)
    ]
    return sorted(found, key=lambda shared: (-shared.num_pages, shared.first_page))


def _numbers(count: int) -> NDArray[np.uint64]:
    """Numbers that look random, always the same ones (SplitMix64, by Steele, Lea and Flood)."""
    with np.errstate(over="ignore"):
        number = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            number = (number ^ (number >> np.uint64(shift))) * np.uint64(factor)
        return number ^ (number >> np.uint64(31))
