"""pagedkv's step calls, as the peer benchmark drives every library: see run.py."""

from typing import Any

import numpy as np
from adapters.base import BaseAdapter, PoolConfig
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request, SlidingWindowSpec


class Served(int):
    """The handle of a request of the benchmark, with what the harness wants kept beside it."""

    num_cached = 0


class Adapter(BaseAdapter):
    """One call for the decodes of a step, and one for all that it has computed."""

    name = "pagedkv"
    version = "0.1.0"
    hash_names = ("sha256_cbor", "sha256", "xxh3_128_cbor", "xxh3_128", "pagedkv", "pagedkv_xxh3")

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
        self.ones = np.ones(cfg.max_running, np.int32)

    def new_request(self, rid: str, tokens: list[int]) -> Served:
        return Served(self.manager.add_requests([Request(rid, tokens)])[0])

    def lookup(self, req: Served) -> int:
        req.num_cached = int(self.manager.match_requests([req])[0])
        return req.num_cached

    def allocate(self, req: Served, n_new: int) -> Any:
        grant = self.manager.allocate_step(
            [req], [n_new], num_cached_tokens=[req.num_cached] if req.num_cached else None
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
        ones = self.ones[: len(reqs)]
        grant = self.manager.allocate_step(reqs, ones)
        if grant.num_requests < len(reqs):
            return None
        slots = [self.manager.slot_mapping(reqs, ones, group) for group in self.groups]
        return grant, slots

    def commit_batch(self, work: list[tuple[Served, int]]) -> None:
        requests, counts = zip(*work, strict=True)
        self.manager.commit_step(requests, counts)

    def append_batch(self, pairs: list[tuple[Served, int]]) -> None:
        requests, tokens = zip(*pairs, strict=True)
        self.manager.append_tokens(requests, tokens)

    def free_batch(self, reqs: list[Served]) -> None:
        self.manager.remove_requests(reqs)

    def num_free(self) -> int:
        return self.manager.num_free_pages

    def num_cached(self) -> int:
        return self.manager.num_cached_pages

    def evictions(self) -> int:
        return self.manager.num_evictions

    def check(self) -> None:
        self.manager.check_invariants()
        assert self.num_free() == self.cfg.num_pages - 1
