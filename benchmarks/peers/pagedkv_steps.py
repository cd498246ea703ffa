"""pagedkv's step calls, as the peer benchmark drives every library: see run.py."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from adapters.base import BaseAdapter, PoolConfig
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request, SlidingWindowSpec


@dataclass(slots=True, eq=False)
class Served:
    """A request of the benchmark."""

    handle: int
    num_cached: int = 0


HANDLE = attrgetter("handle")


def int32(values: Any) -> np.ndarray:
    return np.fromiter(values, np.int32, len(values))


def handles_of(requests: Any) -> np.ndarray:
    return np.fromiter(map(HANDLE, requests), np.int64, len(requests))


class Adapter(BaseAdapter):
    """One call for the decodes of a step, and one for all that it has computed."""

    name = "pagedkv"
    version = "0.1.0"
    hash_names = ("sha256_cbor", "sha256", "xxh3_128_cbor", "xxh3_128", "pagedkv")

    def __init__(self, cfg: PoolConfig) -> None:
        super().__init__(cfg)
        layout = (cfg.page_size, 8, 128, "bfloat16")
        groups = [CacheGroupSpec(FullAttentionSpec(*layout))]
        if cfg.window is not None:
            groups.append(CacheGroupSpec(SlidingWindowSpec(*layout, sliding_window=cfg.window)))
        self.manager = CacheManager(
            cfg.num_pages,
            groups,
            cfg.max_model_len,
            cfg.caching,
            hash_algorithm=cfg.hash_name or "sha256_cbor",
        )
        self.groups = range(len(groups))

    def new_request(self, rid: str, tokens: list[int]) -> Served:
        return Served(int(self.manager.add_requests([Request(rid, tokens)])[0]))

    def lookup(self, req: Served) -> int:
        req.num_cached = int(self.manager.match_requests(handles_of([req]))[0])
        return req.num_cached

    def allocate(self, req: Served, n_new: int) -> Any:
        grant = self.manager.allocate_step(
            handles_of([req]),
            int32([n_new]),
            num_cached_tokens=int32([req.num_cached]) if req.num_cached else None,
        )
        if grant.num_requests == 0:
            return None
        req.num_cached = 0
        return grant

    def page_ids(self, handle: Any) -> list[np.ndarray]:
        return [handle.new_page_ids(group) for group in self.groups]

    def first_page_ids(self, req: Served, handle: Any) -> list[np.ndarray]:
        return self.page_ids(handle)

    def decode_batch(self, reqs: list[Served]) -> Any:
        handles = handles_of(reqs)
        ones = np.ones(len(reqs), np.int32)
        grant = self.manager.allocate_step(handles, ones)
        if grant.num_requests < len(reqs):
            return None
        slots = [self.manager.slot_mapping(handles, ones, group) for group in self.groups]
        return grant, slots

    def commit_batch(self, work: list[tuple[Served, int]]) -> None:
        requests, counts = zip(*work, strict=True)
        self.manager.commit_step(handles_of(requests), int32(counts))

    def append_batch(self, pairs: list[tuple[Served, int]]) -> None:
        requests, tokens = zip(*pairs, strict=True)
        self.manager.append_tokens(handles_of(requests), int32(tokens))

    def free_batch(self, reqs: list[Served]) -> None:
        self.manager.remove_requests(handles_of(reqs))

    def num_free(self) -> int:
        return self.manager.num_free_pages

    def num_cached(self) -> int:
        return self.manager.num_cached_pages

    def evictions(self) -> int:
        return self.manager.num_evictions

    def check(self) -> None:
        self.manager.check_invariants()
        assert self.num_free() == self.cfg.num_pages - 1
