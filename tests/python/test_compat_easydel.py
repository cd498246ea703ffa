"""The stand-in for EasyDeL's `esurge.core`: its names, its pool, and managers put together of parts."""

import importlib
import re
from types import SimpleNamespace

import pytest
from pagedkv import Request
from pagedkv.compat import easydel
from pagedkv.compat.easydel import (
    CacheGroupSpec,
    CacheManager,
    CachePages,
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    PageHash,
    PageHashWithGroupId,
    PagePool,
    SlidingWindowSpec,
    dp_shard_for_page_id,
    dp_shard_page_bounds,
    pages_per_dp_shard,
    usable_pages_count,
)

# `__all__` of EasyDeL's `esurge.core`, and what its submodules have besides.
NAMES = [
    "AttentionSpec",
    "CacheCoordinator",
    "CacheCoordinatorNoPrefixCache",
    "CacheGroupSpec",
    "CacheGroupsConfig",
    "CacheManager",
    "CachePages",
    "CacheSpec",
    "ChunkedLocalAttentionManager",
    "ChunkedLocalAttentionSpec",
    "FullAttentionManager",
    "FullAttentionSpec",
    "HybridCacheCoordinator",
    "MambaManager",
    "MambaSpec",
    "PagePool",
    "SingleTypeCacheManager",
    "SlidingWindowManager",
    "SlidingWindowSpec",
    "UnitaryCacheCoordinator",
    "create_kv_cache_specs_from_config",
]
SUBMODULES = {
    "coordinator": "CacheCoordinator CacheCoordinatorNoPrefixCache HybridCacheCoordinator "
    "UnitaryCacheCoordinator get_kv_cache_coordinator",
    "dp_sharding": "dp_shard_for_page_id dp_shard_page_bounds pages_per_dp_shard "
    "usable_pages_count",
    "interface": "AttentionSpec CacheGroupSpec CacheGroupsConfig CacheSpec "
    "ChunkedLocalAttentionSpec FullAttentionSpec MambaSpec RuntimePageBudgetEstimate "
    "SlidingWindowSpec create_kv_cache_specs_from_config estimate_runtime_page_budget",
    "manager": "CacheManager CachePages",
    "page_pool": "PagePool",
    "single_type_cache_manager": "ChunkedLocalAttentionManager FullAttentionManager MambaManager "
    "SingleTypeCacheManager SlidingWindowManager get_manager_for_kv_cache_spec",
    "utils": "CachePage FreeCachePageQueue PageHash PageHashWithGroupId hash_page_tokens "
    "hash_request_tokens init_none_hash",
}
LAYOUT = {"page_size": 4, "num_kv_heads": 1, "head_size": 8, "dtype": "float32"}
FULL = CacheGroupSpec(FullAttentionSpec(**LAYOUT))
WINDOW = CacheGroupSpec(SlidingWindowSpec(**LAYOUT, sliding_window=5))


def make_manager(num_pages=16, groups=(FULL,), kind=CacheManager, **options):
    return kind(num_pages, list(groups), 64, **options)


def new(request_id, tokens):
    tokens = list(tokens)
    return SimpleNamespace(
        request_id=request_id, num_tokens=len(tokens), num_computed_tokens=0, all_token_ids=tokens
    )


def ids(pages):
    return [page.page_id for page in pages]


def test_there_are_21_names():
    assert len(NAMES) == 21


@pytest.mark.parametrize("name", NAMES)
def test_name_is_there(name):
    assert getattr(easydel, name) is not None


@pytest.mark.parametrize("module", SUBMODULES)
def test_submodule_has_its_names(module):
    found = importlib.import_module(f"pagedkv.compat.easydel.{module}")
    for name in SUBMODULES[module].split():
        assert getattr(found, name) is getattr(easydel, name)


@pytest.mark.parametrize(
    ("num_pages", "dp", "expected"),
    [(12, 4, 3), (12, 5, None), (12, 1, None), (12, None, None), (12, 0, None), (0, 2, None)],
)
def test_pages_per_dp_shard(num_pages, dp, expected):
    assert pages_per_dp_shard(num_pages, dp) == expected


def test_dp_shards_are_ranges_of_ids():
    shards = [dp_shard_for_page_id(page, 3, 3) for page in range(10)]
    assert shards == [None, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert dp_shard_for_page_id(-1, 3, 3) is None
    assert dp_shard_for_page_id(4, 0, 3) is None
    assert [dp_shard_page_bounds(shard, 4) for shard in range(3)] == [(1, 4), (4, 8), (8, 12)]
    assert [usable_pages_count(pages) for pages in (0, 1, 8)] == [0, 0, 7]


def test_pool_gives_pages_of_a_shard():
    pool = PagePool(12, enable_caching=True)
    assert ids(pool.get_new_pages(2, dp_shard_hint=3, data_parallel_size=4)) == [9, 10]
    assert ids(pool.get_new_pages(2, dp_shard_hint=4, data_parallel_size=4)) == [1, 2]
    text = "[PagePool.get_new_pages] cannot get 2 pages in shard 3, 7 are free in all"
    with pytest.raises(ValueError, match=re.escape(text)):
        pool.get_new_pages(2, dp_shard_hint=3, data_parallel_size=4)
    assert ids(pool.get_new_pages(2, dp_shard_hint=3, data_parallel_size=5)) == [3, 4]
    assert ids(pool.get_new_pages(1)) == [5]
    assert pool.get_num_free_pages() == 4
    assert pool.get_usage() == pytest.approx(8 / 12)


def test_pool_counts_holders():
    pool = PagePool(4, enable_caching=True)
    pages = pool.get_new_pages(2)
    pool.touch(([pool.null_page, *pages], []))
    assert [page.ref_cnt for page in pages] == [2, 2]
    pool.free_pages(iter(pages))
    pool.free_pages([pool.null_page, *reversed(pages)])
    assert ids(pool.free_page_queue.get_all_free_pages()) == [3, 2, 1]
    assert pool.free_page_queue.num_free_pages == 3
    with pytest.raises(ValueError, match="page 1 is not allocated"):
        pool.free_pages(pages)
    with pytest.raises(ValueError, match="count must be >= 0, got -1"):
        pool.get_new_pages(-1)
    assert ids(pool.pages) == [0, 1, 2, 3]


def test_pool_finds_what_was_cached():
    pool = PagePool(12, enable_caching=True)
    request, hashes = new("a", range(8)), []
    pages = pool.get_new_pages(3)
    pool.cache_full_pages(request, pages, hashes, 0, 1, 4, 0)
    pool.cache_full_pages(request, [*pages[:1], pages[1]], hashes, 1, 2, 4, 0)
    assert len(hashes) == 2
    assert [ids(pool.get_cached_page(page_hash, [0])) for page_hash in hashes] == [[1], [2]]
    assert pool.get_cached_page(hashes[0], [0, 1]) is None
    assert pool.get_cached_page(hashes[0], [0], dp_shard_hint=1, data_parallel_size=2) is None
    assert ids(pool.get_cached_page(hashes[0], [0], dp_shard_hint=0, data_parallel_size=2)) == [1]
    by_hash = pool.cached_page_hash_to_page
    key = PageHashWithGroupId(hashes[0], 0)
    assert (len(by_hash), key in by_hash, len(list(by_hash))) == (2, True, 2)
    assert ids(by_hash.get(key).values()) == [1]
    assert PageHashWithGroupId(hashes[0], 1) not in by_hash
    assert "hash" not in by_hash
    assert not pool.reset_prefix_cache()
    pool.free_pages(pages)
    assert pool.reset_prefix_cache()
    assert pool.get_cached_page(hashes[0], [0]) is None


def test_pool_never_caches_the_null_page():
    pool = PagePool(4, enable_caching=True)
    pages = [pool.null_page, *pool.get_new_pages(1)]
    hashes = []
    pool.cache_full_pages(new("a", range(8)), pages, hashes, 0, 2, 4, 0)
    assert pool.get_cached_page(hashes[0], [0]) is None
    assert ids(pool.get_cached_page(hashes[1], [0])) == [1]


@pytest.mark.parametrize(
    ("tokens", "num_cached", "num_full", "text"),
    [
        (8, 1, 2, "1 pages are cached, page_hashes has 0"),
        (7, 0, 2, "page 1 of request 'a' has 3 tokens, not 4"),
        (12, 0, 3, "page 2 can be found already"),
    ],
)
def test_pool_refuses_to_cache_and_changes_nothing(tokens, num_cached, num_full, text):
    pool = PagePool(8, enable_caching=True)
    pages = pool.get_new_pages(3)
    pool.cache_full_pages(new("x", range(50, 54)), [pages[1]], [], 0, 1, 4, 0)
    hashes = []
    with pytest.raises(ValueError, match=re.escape(f"[PagePool.cache_full_pages] {text}")):
        pool.cache_full_pages(new("a", range(tokens)), pages, hashes, num_cached, num_full, 4, 0)
    assert (hashes, len(pool.cached_page_hash_to_page)) == ([], 1)


def test_pool_takes_digests_and_any_other_hash():
    pool = PagePool(4, enable_caching=True)
    pages = pool.get_new_pages(2)
    hashes = [PageHash(bytes(range(32)), ()), PageHash(7, (1, 2), "extra")]
    pool.cache_full_pages(new("a", []), pages, hashes, 0, 2, 4, 0)
    assert pages[0].page_hash.page_hash.hash_value == bytes(range(32))
    assert ids(pool.get_cached_page(PageHash(7, (1, 2), "extra"), [0])) == [2]
    assert pool.get_cached_page(PageHash(7, (1, 3), "extra"), [0]) is None


def test_pool_of_a_manager_is_to_look_at():
    manager = make_manager(12)
    manager.allocate_slots(new("a", range(8)), 8, dp_shard_hint=1, data_parallel_size=3)
    pool = manager.page_pool
    assert (pool.get_num_free_pages(), len(pool.cached_page_hash_to_page)) == (9, 2)
    assert [page.ref_cnt for page in pool.pages[4:7]] == [1, 1, 0]
    for name, arguments in [
        ("get_new_pages", (1,)),
        ("touch", ([],)),
        ("free_pages", ([],)),
        ("reset_prefix_cache", ()),
        ("cache_full_pages", (None, [], [], 0, 0, 4, 0)),
    ]:
        with pytest.raises(TypeError, match=rf"^\[PagePool.{name}\] the pool belongs to a Cache"):
            getattr(pool, name)(*arguments)
    with pytest.raises(ValueError, match=r"^\[PagePool\] the manager has 3 shards, got 2"):
        pool.get_cached_page(PageHash(1, ()), [0], dp_shard_hint=0, data_parallel_size=2)
    assert pool.get_cached_page(PageHash(1, ()), [0], dp_shard_hint=0, data_parallel_size=3) is None


def test_life_of_a_request():
    manager = make_manager(groups=(FULL, WINDOW))
    first, second = new("a", range(10)), new("b", range(10))
    pages, count = manager.get_computed_pages(first)
    assert (pages, count) == (manager.create_empty_page_list(), 0)
    assert manager.allocate_slots(first, 10, count, pages).get_page_ids() == ([1, 2, 3], [4, 5, 6])
    pages, count = manager.get_computed_pages(second)
    assert (pages.get_page_ids(), count) == (([1, 2], [0, 5]), 8)
    manager.allocate_slots(second, 2, count, pages)
    assert manager.get_num_common_prefix_pages(second, 2) == [2, 0]
    coordinator = manager.coordinator
    assert coordinator.get_num_common_prefix_pages("b", 2) == [2, 0]
    assert ids(coordinator.get_pages("a")[0]) == [1, 2, 3]
    assert ids(coordinator.single_type_managers[1].get_pages("a")) == [4, 5, 6]
    assert manager.usage == pytest.approx(manager.page_pool.get_usage())
    manager.cache_pages(first, 10)
    for request in (first, second):
        manager.free(request)
        manager.free_page_hashes(request)
    assert manager.get_page_ids("a") == ([], [])
    assert manager.reset_prefix_cache()
    manager.check_invariants()


@pytest.mark.parametrize(
    ("groups", "options", "name"),
    [
        ((FULL,), {}, "UnitaryCacheCoordinator"),
        ((FULL, WINDOW), {}, "HybridCacheCoordinator"),
        ((FULL, WINDOW), {"enable_caching": False}, "CacheCoordinatorNoPrefixCache"),
    ],
)
def test_coordinator_is_named_for_its_groups(groups, options, name):
    assert type(make_manager(groups=groups, **options).coordinator).__name__ == name


def test_groups_have_managers_named_for_their_type():
    chunk = CacheGroupSpec(ChunkedLocalAttentionSpec(**LAYOUT, attention_chunk_size=8))
    state = CacheGroupSpec(MambaSpec(4, [(2, 8)], "float32"))
    manager = make_manager(groups=(FULL, WINDOW, chunk, state))
    names = [type(one).__name__ for one in manager.coordinator.single_type_managers]
    assert names == [
        "FullAttentionManager",
        "SlidingWindowManager",
        "ChunkedLocalAttentionManager",
        "MambaManager",
    ]


def test_a_method_can_be_replaced_on_one_instance():
    manager, calls = make_manager(), []
    allocate = manager.allocate_slots

    def spy(request, *args, **kwargs):
        calls.append(request.request_id)
        return allocate(request, *args, **kwargs)

    manager.allocate_slots = spy
    assert manager.allocate_slots(new("a", range(8)), 8).get_page_ids() == ([1, 2],)
    assert calls == ["a"]


def test_a_subclass_can_override():
    class Stingy(CacheManager):
        def allocate_slots(self, request, num_new_tokens, *args, **kwargs):
            if num_new_tokens > 4:
                return None
            return super().allocate_slots(request, num_new_tokens, *args, **kwargs)

    manager = make_manager(kind=Stingy)
    assert manager.allocate_slots(new("a", range(8)), 8) is None
    assert manager.allocate_slots(new("a", range(8)), 4).get_page_ids() == ([1],)


def test_takes_no_requests_of_pagedkv():
    with pytest.raises(TypeError, match="takes a scheduler's own request objects"):
        make_manager().allocate_slots(Request("a", range(8)), 8)


class Parts:
    """A coordinator and a pool in one, which note what they are asked; pages are texts."""

    def __init__(self, num_free, new_pages):
        self.num_free, self.new_pages, self.calls = num_free, new_pages, []

    def get_num_free_pages(self):
        return self.num_free

    def get_num_pages_to_allocate(self, request_id, num_tokens, new_computed_pages):
        self.calls.append(("wanted", request_id, num_tokens, new_computed_pages))
        return 2

    def allocate_new_pages(self, request_id, num_tokens, *, dp_shard_hint, data_parallel_size):
        self.calls.append(("allocate", num_tokens, dp_shard_hint, data_parallel_size))
        if self.new_pages is None:
            raise ValueError("the shard is full")
        return self.new_pages

    def cache_pages(self, request, page_hashes, num_tokens):
        self.calls.append(("cache", request.request_id, page_hashes, num_tokens))

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: self.calls.append((name, *args))


def manager_of_parts(num_free=8, new_pages=(["new"],), enable_caching=True):
    manager = object.__new__(CacheManager)
    manager.enable_caching = enable_caching
    manager.max_model_len = 64
    manager.kv_cache_groups = [object()]
    manager.req_to_page_hashes = {"r": ["hash"]}
    manager.coordinator = manager.page_pool = Parts(num_free, new_pages)
    return manager, manager.page_pool.calls


PREFIX = (["one", "two"],)


def allocate_with_prefix(manager, **options):
    request = SimpleNamespace(request_id="r", num_computed_tokens=0, num_tokens=12)
    return manager.allocate_slots(request, 4, 8, CachePages(PREFIX), **options)


def test_parts_are_asked_in_turn():
    manager, calls = manager_of_parts()
    pages = allocate_with_prefix(manager, dp_shard_hint=1, data_parallel_size=2)
    assert pages.pages == (["new"],)
    assert calls == [
        ("remove_skipped_pages", "r", 0),
        ("wanted", "r", 12, PREFIX),
        ("touch", PREFIX),
        ("save_new_computed_pages", "r", PREFIX),
        ("allocate", 12, 1, 2),
        ("cache", "r", ["hash"], 12),
    ]


def test_parts_are_rolled_back_when_a_shard_is_full():
    manager, calls = manager_of_parts(new_pages=None)
    assert allocate_with_prefix(manager) is None
    assert calls[-2:] == [
        ("rollback_new_computed_pages", "r", PREFIX),
        ("free_pages", ["one", "two"]),
    ]


def test_parts_without_caching_hold_no_prefix():
    manager, calls = manager_of_parts(new_pages=None, enable_caching=False)
    assert allocate_with_prefix(manager) is None
    names = [call[0] for call in calls]
    assert "rollback_new_computed_pages" in names
    assert not {"touch", "free_pages", "cache"} & set(names)


def test_parts_without_room_are_left_alone():
    manager, calls = manager_of_parts(num_free=1)
    assert allocate_with_prefix(manager) is None
    assert [call[0] for call in calls] == ["remove_skipped_pages", "wanted"]


def test_parts_that_cache_later():
    manager, calls = manager_of_parts()
    assert allocate_with_prefix(manager, delay_cache_pages=True) is not None
    assert calls[-1][0] == "allocate"
    with pytest.raises(ValueError, match="num_new_tokens must be greater than 0"):
        manager.allocate_slots(SimpleNamespace(request_id="r"), 0)
