"""EasyDeL's cache manager and ours, given the same calls and compared after each.

Where EasyDeL is known to be wrong, the pair goes round it, and says so: see the methods whose names
begin with `avoid_`, `extend_` or `forget_`, and test_easydel_differences.py, which shows each.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pagedkv.compat.easydel as ours_module
from lockstep_config import Config


class Mismatch(AssertionError):
    """The managers do not agree."""


@dataclass
class Hit:
    """What both managers found cached."""

    theirs: Any
    ours: Any
    num_tokens: int = 0


class Pair:
    """Two managers that must do the same.

    Attributes:
      theirs: EasyDeL's manager.
      ours: pagedkv's.
      num_ops: Calls made to both.
      recent: The last of them.
      counts: How often each call was made, and what happened.
      gives_copies: Whether our manager gets another object in each call, of no class at all.
      requests: Requests that are known to the managers, by their id.
    """

    def __init__(self, easydel: SimpleNamespace, config: Config) -> None:
        self.config = config
        self.easydel = easydel
        self.theirs = config.manager(easydel.manager.CacheManager, easydel.interface)
        self.ours = config.manager(ours_module.CacheManager, ours_module)
        self.gives_copies = False
        self.num_ops = 0
        self.recent: deque[tuple[Any, ...]] = deque(maxlen=40)
        self.counts: Counter[str] = Counter()
        self.requests: dict[str, Any] = {}
        # The group whose digests EasyDeL makes first, for all groups.
        self.hashing = next(
            (
                manager
                for group, manager in zip(
                    config.groups, self.theirs.coordinator.single_type_managers, strict=True
                )
                if group.kind != "mamba"
            ),
            None,
        )

    # --- the calls --------------------------------------------------------------------------------

    def get_computed_pages(self, request: Any, **shard: int | None) -> Hit:
        self.requests[request.request_id] = request
        self.extend_hashes_of_resumed(request)
        (theirs, num_theirs), (ours, num_ours) = self.both(
            "get_computed_pages", request, lambda m, r: m.get_computed_pages(r, **shard), shard
        )
        self.same("hit", (theirs.get_page_ids(), num_theirs), (ours.get_page_ids(), num_ours))
        self.counts["hit"] += num_ours > 0
        self.compare()
        return Hit(theirs, ours, num_ours)

    def no_hit(self) -> Hit:
        return Hit(
            *self.both("create_empty_page_list", None, lambda m, _: m.create_empty_page_list())
        )

    def allocate_slots(
        self, request: Any, num_new_tokens: int, hit: Hit | None = None, **arguments: Any
    ) -> bool:
        """False if the managers refuse."""
        self.requests[request.request_id] = request
        num_cached = hit.num_tokens if hit else arguments.get("num_new_computed_tokens", 0)
        arguments["num_new_computed_tokens"] = num_cached
        self.avoid_null_pages_among_the_cached(request)
        # The first thing that EasyDeL does; here, so that what it is about to find can be seen.
        self.theirs.coordinator.remove_skipped_pages(
            request.request_id, request.num_computed_tokens
        )
        if not arguments.get("delay_cache_pages"):
            total = request.num_computed_tokens + num_cached + num_new_tokens
            self.extend_hashes_without_parent(request, min(total, request.num_tokens), hit)

        def call(manager: Any, request: Any) -> Any:
            pages = None
            if hit is not None:
                pages = hit.ours if manager is self.ours else hit.theirs
            return manager.allocate_slots(
                request, num_new_tokens, new_computed_pages=pages, **arguments
            )

        self.note("allocate_slots", request, num_new_tokens, arguments)
        ours = call(self.ours, self.as_given(request))
        if ours is None and self.is_refused_by_shard(request, num_new_tokens, hit, arguments):
            self.counts["refused by a shard"] += 1
            self.refuse_in_shard(request, hit, call)
            self.compare()
            return False
        theirs = call(self.theirs, request)
        self.counts["refused"] += ours is None
        self.same("new pages", theirs and theirs.get_page_ids(), ours and ours.get_page_ids())
        self.compare()
        return ours is not None

    def cache_pages(self, request: Any, num_tokens: int) -> None:
        self.extend_hashes_without_parent(request, num_tokens)
        self.both("cache_pages", request, lambda m, r: m.cache_pages(r, num_tokens), num_tokens)
        self.compare()

    def free(self, request: Any) -> None:
        self.both("free", request, lambda m, r: m.free(r))
        self.compare()

    def free_page_hashes(self, request: Any) -> None:
        self.both("free_page_hashes", request, lambda m, r: m.free_page_hashes(r))
        self.requests.pop(request.request_id, None)
        self.compare()

    def get_num_common_prefix_pages(self, request: Any, num_requests: int) -> None:
        counts = self.both(
            "get_num_common_prefix_pages",
            request,
            lambda m, r: m.get_num_common_prefix_pages(r, num_requests),
            num_requests,
        )
        self.same("common prefix", *counts)
        self.compare()

    def reset_prefix_cache(self) -> None:
        self.same(
            "reset", *self.both("reset_prefix_cache", None, lambda m, _: m.reset_prefix_cache())
        )
        self.compare()

    # --- comparing --------------------------------------------------------------------------------

    def note(self, name: str, request: Any, *arguments: Any) -> None:
        self.num_ops += 1
        self.counts[name] += 1
        if request is None:
            self.recent.append((self.num_ops, name))
            return
        numbers = (request.num_tokens, request.num_computed_tokens)
        self.recent.append((self.num_ops, name, request.request_id, numbers, *arguments))

    def both(
        self, name: str, request: Any, call: Callable[[Any, Any], Any], *arguments: Any
    ) -> tuple[Any, Any]:
        self.note(name, request, *arguments)
        return call(self.theirs, request), call(self.ours, self.as_given(request))

    def as_given(self, request: Any) -> Any:
        """The request as our manager gets it."""
        if request is None or not self.gives_copies:
            return request
        names = "request_id num_tokens num_computed_tokens sampling_params status has_vision"
        copy = SimpleNamespace(**{name: getattr(request, name) for name in names.split()})
        copy.all_token_ids = list(request.all_token_ids)
        copy.mm_features = list(request.mm_features)
        return copy

    def same(self, what: str, theirs: Any, ours: Any) -> None:
        if theirs != ours:
            raise Mismatch(f"{what}: EasyDeL {theirs}, pagedkv {ours}")

    def compare(self) -> None:
        """All that can be seen of the managers."""
        theirs, ours = self.theirs.page_pool, self.ours.page_pool
        free = [page.page_id for page in theirs.free_page_queue.get_all_free_pages()]
        self.same("free list", free, self.ours._core.page_pool.free_pages().tolist())
        self.same("usage", self.theirs.usage, self.ours.usage)
        self.same(
            "number of keys",
            len(theirs.cached_page_hash_to_page),
            len(ours.cached_page_hash_to_page),
        )
        for request_id in self.requests:
            pages = self.theirs.get_page_ids(request_id)
            self.same(f"pages of {request_id}", pages, self.ours.get_page_ids(request_id))
        if self.num_ops % 64 == 0:
            self.compare_pages()

    def compare_pages(self) -> None:
        self.ours.check_invariants()
        for theirs, ours in zip(
            self.theirs.page_pool.pages, self.ours.page_pool.pages, strict=True
        ):
            if not theirs.is_null:
                facts = [(page.ref_cnt, page.page_hash is not None) for page in (theirs, ours)]
                self.same(f"holders and content of page {theirs.page_id}", *facts)

    # --- where EasyDeL is wrong -------------------------------------------------------------------

    def num_cached(self, request: Any) -> int:
        """Pages of a request that EasyDeL counts as cached."""
        if self.hashing is None:
            return 0
        return int(self.hashing.num_cached_page.get(request.request_id, 0))

    def num_unneeded(self, request: Any) -> int:
        """Leading pages that the next allocation of a request gives back in some group."""
        num_computed = request.num_computed_tokens
        most = 0
        for group in self.config.groups:
            if group.kind == "sliding":
                most = max(most, (num_computed - group.reach + 1) // group.page_size)
            elif group.kind == "chunked" and self.num_cached(request) == 0:
                most = max(most, num_computed // group.reach * group.reach // group.page_size)
        return most

    def is_too_far_ahead(self, request: Any) -> bool:
        """Whether pages are going to be given back whose tokens are not all known yet.

        EasyDeL takes the null page for them when it caches them.
        """
        if not self.config.enable_caching or self.hashing is None:
            return False
        return self.num_unneeded(request) > request.num_tokens // self.hashing.page_size

    def avoid_null_pages_among_the_cached(self, request: Any) -> None:
        """Caches pages that are about to be given back: EasyDeL cannot do so later."""
        if not self.config.enable_caching or self.hashing is None:
            return
        if self.num_unneeded(request) > self.num_cached(request):
            self.counts["cached before it slides away"] += 1
            self.cache_pages(request, min(request.num_computed_tokens, request.num_tokens))

    def extend_hashes(self, request: Any, num_pages: int) -> None:
        """Gives EasyDeL the digests that it would make wrong, or not at all."""
        utils, page_size = self.easydel.utils, self.hashing.page_size
        hashes = self.theirs.req_to_page_hashes[request.request_id]
        for i in range(len(hashes), num_pages):
            tokens = request.all_token_ids[i * page_size : (i + 1) * page_size]
            hashes.append(utils.hash_page_tokens(hash, hashes[-1].hash_value, tokens, None))
            self.counts["digest given to EasyDeL"] += 1

    def extend_hashes_of_resumed(self, request: Any) -> None:
        """EasyDeL looks up only the pages that were hashed when the request was preempted."""
        hashes = self.theirs.req_to_page_hashes.get(request.request_id)
        if hashes and self.config.enable_caching:
            self.extend_hashes(request, (request.num_tokens - 1) // self.hashing.page_size)

    def extend_hashes_without_parent(
        self, request: Any, num_tokens: int, hit: Hit | None = None
    ) -> None:
        """EasyDeL finds no parent of the next digest, if all cached pages were given back."""
        hashes = self.theirs.req_to_page_hashes.get(request.request_id)
        if not hashes or not self.config.enable_caching:
            return
        num_cached = self.num_cached(request)
        pages = self.hashing.req_to_pages.get(request.request_id)
        if hit is not None and hit.num_tokens:
            pages = hit.theirs.pages[self.hashing.kv_cache_group_id]
            num_cached = len(pages)
        if num_cached and pages[num_cached - 1].is_null:
            self.extend_hashes(request, num_tokens // self.hashing.page_size)

    def is_refused_by_shard(
        self, request: Any, num_new_tokens: int, hit: Hit | None, arguments: dict[str, Any]
    ) -> bool:
        """Whether EasyDeL has enough pages, but not in the shard they have to be in."""
        size = arguments.get("data_parallel_size")
        if (size or 1) <= 1 or self.config.num_pages % size:
            return False
        coordinator, pool = self.theirs.coordinator, self.theirs.page_pool
        held = hit.theirs.pages if hit else tuple([] for _ in self.config.groups)
        num_tokens = request.num_computed_tokens + arguments["num_new_computed_tokens"]
        num_tokens += num_new_tokens + arguments.get("num_lookahead_tokens", 0)
        num_wanted = coordinator.get_num_pages_to_allocate(
            request.request_id, min(num_tokens, self.config.max_model_len), held
        )
        if num_wanted > pool.get_num_free_pages():
            return False
        pages = tuple(
            a + b for a, b in zip(coordinator.get_pages(request.request_id), held, strict=True)
        )
        shard = self.theirs._infer_dp_shard_from_pages(pages, data_parallel_size=size)
        if shard is None:
            hint = arguments.get("dp_shard_hint")
            if hint is None:
                return False
            shard = hint % size
        waking = [page for group in held for page in group if page.ref_cnt == 0 and page.page_id]
        taken = {page.page_id for page in waking}
        per_shard = self.config.num_pages // size
        num_free = sum(
            page.page_id // per_shard == shard and page.page_id not in taken
            for page in pool.free_page_queue.get_all_free_pages()
        )
        return bool(num_wanted - len(waking) > num_free)

    def refuse_in_shard(
        self, request: Any, hit: Hit | None, call: Callable[[Any, Any], Any]
    ) -> None:
        """EasyDeL keeps the first groups' new pages, and moves the hit to the end of the queue."""
        has_hit = hit is not None and any(hit.theirs.pages)
        if len(self.config.groups) > 1 or has_hit:
            return
        self.same("refusal in a full shard", call(self.theirs, request), None)
        if not self.theirs.coordinator.get_pages(request.request_id)[0]:
            self.theirs.free(request)  # it counts as one that was allocated
