"""CacheManager and Request from Python: arrays, lifetimes, and every error with its text."""

import gc
import re
import weakref

import numpy as np
import pytest
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request, hash_page, none_hash

PAGE_SIZE = 4


def make_manager(num_pages=8, num_groups=1, max_model_len=32, **options):
    spec = FullAttentionSpec(PAGE_SIZE, num_kv_heads=1, head_size=8, dtype="float32")
    return CacheManager(num_pages, [CacheGroupSpec(spec)] * num_groups, max_model_len, **options)


@pytest.fixture
def manager():
    return make_manager()


def compute(manager, request):
    cached = manager.match(request)
    assert manager.allocate(request, request.num_tokens - cached, num_cached_tokens=cached)
    manager.commit(request, request.num_tokens)


def test_life_of_a_request(manager):
    first, second = Request("a", np.arange(10, dtype=np.int32)), Request("b", range(10))
    compute(manager, first)
    assert manager.match(second) == 8
    assert manager.allocate(second, 2, num_cached_tokens=8)
    assert second.num_computed_tokens == 8
    assert manager.page_table([first, second]).tolist() == [[1, 2, 3], [1, 2, 4]]
    assert manager.slot_mapping([second], [2]).tolist() == [16, 17]
    manager.commit(second, 10)
    second.append(10)
    assert manager.allocate(second, 1)
    assert manager.slot_mapping([second], [1]).tolist() == [18]
    manager.free(first)
    manager.free(second)
    assert manager.num_free_pages == manager.num_pages - 1
    assert manager.num_cached_pages == 2
    manager.check_invariants()


def test_each_group_has_pages_of_its_own():
    manager = make_manager(num_groups=2)
    request = Request("a", range(6))
    compute(manager, request)
    assert manager.page_ids(request, group=0).tolist() == [1, 2]
    assert manager.page_ids(request, group=1).tolist() == [3, 4]
    assert manager.slot_mapping([request], [0], group=1).tolist() == []


def test_arrays_are_int32_and_fresh(manager):
    request = Request("a", range(6))
    compute(manager, request)
    table = manager.page_table([request], width=3)
    assert (table.dtype, table.tolist()) == (np.int32, [[1, 2, 0]])
    table[:] = 99
    manager.page_ids(request)[:] = 99
    assert manager.page_table([request], width=3).tolist() == [[1, 2, 0]]
    manager.check_invariants()


def test_arrays_of_an_empty_batch(manager):
    assert manager.page_table([]).shape == (0, 0)
    assert manager.page_table([], width=5).shape == (0, 5)
    assert manager.slot_mapping([], []).shape == (0,)


def test_full_pool_returns_false_and_changes_nothing(manager):
    big, other = Request("a", range(20)), Request("b", range(100, 112))
    compute(manager, big)
    assert not manager.allocate(other, 12)
    assert (manager.num_free_pages, other.is_allocated) == (2, False)
    assert manager.allocate(other, 8)


def test_page_hash_is_the_chain_of_the_tokens(manager):
    request = Request("a", range(9))
    manager.match(request)
    first = hash_page(none_hash(), range(4))
    assert request.page_hash(0) == first
    assert request.page_hash(1) == hash_page(first, range(4, 8))
    with pytest.raises(IndexError, match=r"page must be in \[0, 2\) \(only full pages"):
        request.page_hash(2)
    with pytest.raises(ValueError, match="no manager has seen request 'new' yet"):
        Request("new", range(9)).page_hash(0)


def test_request_copies_its_tokens():
    tokens = np.arange(3, dtype=np.int32)
    request = Request("a", tokens)
    tokens[0] = 7
    request.tokens[1] = 7
    request.append(np.int64([3, 4]))
    request.append(5)
    assert request.tokens.tolist() == [0, 1, 2, 3, 4, 5]
    assert repr(request) == "Request('a', num_tokens=6, num_computed_tokens=0)"


def test_append_takes_all_or_nothing():
    request = Request("a", [])
    with pytest.raises(
        ValueError, match=r"^\[Request.append\] tokens must fit in int32, got 2147483648"
    ):
        request.append([1, 2**31])
    with pytest.raises(TypeError, match=r"^\[Request.append\] tokens must be integers, got float"):
        request.append([1, 2.5])
    assert request.num_tokens == 0


@pytest.mark.parametrize(
    ("tokens", "error", "text"),
    [
        ("abc", TypeError, "[Request] tokens must be a one-dimensional array or a sequence"),
        (np.zeros(2), TypeError, "[Request] tokens must be a one-dimensional array or a sequence"),
        (np.zeros((2, 2), np.int32), TypeError, "[Request] tokens must be a one-dimensional"),
        (["a"], TypeError, "[Request] tokens must be integers, got str at position 0"),
        ([0, 2**31], ValueError, "tokens must fit in int32, got 2147483648 at position 1"),
        ([-(2**63) - 1], ValueError, "tokens must fit in int32, got -9223372036854775809"),
    ],
)
def test_refuses_tokens_that_are_not_int32(tokens, error, text):
    with pytest.raises(error, match=re.escape(text)):
        Request("a", tokens)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_pages": 0}, "[PagePool] num_pages must be >= 1"),
        ({"num_groups": 0}, "[CacheManager] kv_cache_groups must not be empty"),
        ({"num_groups": 65536}, "kv_cache_groups must be at most 65535, got 65536"),
        ({"max_model_len": 0}, "[CacheManager] max_model_len must be >= 1, got 0"),
        ({"num_pages": 2**30}, "slots are int32: num_pages * page_size must be <= 2147483647"),
    ],
)
def test_refuses_a_manager_that_cannot_work(arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make_manager(**arguments)


def test_groups_may_differ_in_page_size():
    groups = [CacheGroupSpec(FullAttentionSpec(size, 1, 8, "float32")) for size in (4, 6)]
    manager = CacheManager(16, groups, 32)
    assert (manager.page_sizes, manager.hash_page_size, manager.prefix_unit) == ([4, 6], 2, 12)
    first, second = Request("a", range(14)), Request("b", range(14))
    compute(manager, first)
    assert manager.match(second) == 12
    assert manager.page_ids(first, group=1).tolist() == [5, 6, 7]
    with pytest.raises(ValueError, match="num_cached_tokens must be a multiple of prefix_unit 12"):
        manager.allocate(second, 1, num_cached_tokens=4)


@pytest.mark.parametrize("size", [0, -2, 3, 4])
def test_refuses_a_hash_page_size_that_does_not_divide_every_page_size(size):
    groups = [CacheGroupSpec(FullAttentionSpec(size, 1, 8, "float32")) for size in (4, 6)]
    with pytest.raises(ValueError, match=f"must divide every group's page size, got {size} where"):
        CacheManager(16, groups, 32, hash_page_size=size)
    assert CacheManager(16, groups, 32, hash_page_size=1).hash_page_size == 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m, r, s: m.allocate(r, 0), ValueError, "num_new_tokens must be >= 1, got 0"),
        (lambda m, r, s: m.allocate(r, 4), ValueError, "request 'held' has 8 tokens, cannot"),
        (
            lambda m, r, s: m.allocate(s, 33),
            ValueError,
            "would have 33 tokens, max_model_len is 32",
        ),
        (
            lambda m, r, s: m.allocate(s, 1, num_cached_tokens=3),
            ValueError,
            "multiple of prefix_unit 4",
        ),
        (lambda m, r, s: m.allocate(s, 1, num_cached_tokens=8), ValueError, "match again"),
        (lambda m, r, s: m.allocate(r, 1, num_cached_tokens=4), ValueError, "holds pages already"),
        (lambda m, r, s: m.commit(r, 7), ValueError, "has room for 6 tokens, got 7"),
        (lambda m, r, s: m.commit(r, 4), ValueError, "has 5 tokens computed already, got 4"),
        (
            lambda m, r, s: m.commit(s, 1),
            ValueError,
            "[CacheManager.commit] request 'stranger' holds",
        ),
        (lambda m, r, s: m.free(s), ValueError, "no pages (freed already, or never allocated)"),
        (lambda m, r, s: m.page_ids(s), ValueError, "[CacheManager.page_ids] request 'stranger'"),
        (lambda m, r, s: m.page_ids(r, 1), IndexError, "group must be in [0, 1), got 1"),
        (lambda m, r, s: m.page_table([r, s]), ValueError, "request 'stranger' holds no pages"),
        (lambda m, r, s: m.page_table([r], width=1), ValueError, "has 2 pages, width is 1"),
        (lambda m, r, s: m.page_table([r], width=-1), ValueError, "width must be >= 0, got -1"),
        (lambda m, r, s: m.page_table([r], group=-1), IndexError, "group must be in [0, 1)"),
        (lambda m, r, s: m.slot_mapping([r], [2]), ValueError, "has room for 1 more tokens, got 2"),
        (lambda m, r, s: m.slot_mapping([r], []), ValueError, "one token count a request, got 0"),
        (lambda m, r, s: m.slot_mapping([r], [0.5]), TypeError, "num_tokens must be integers"),
        (lambda m, r, s: m.slot_mapping([r], [1], group=3), IndexError, "group must be in [0, 1)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_and_changes_nothing(manager, call, error, text):
    held, stranger = Request("held", range(8)), Request("stranger", range(40))
    assert manager.allocate(held, 6)
    manager.commit(held, 5)
    with pytest.raises(error, match=re.escape(text)):
        call(manager, held, stranger)
    assert (manager.page_ids(held).tolist(), held.num_computed_tokens) == ([1, 2], 5)
    assert (manager.num_free_pages, manager.num_requests, stranger.is_allocated) == (5, 1, False)
    manager.check_invariants()


def test_refuses_a_request_of_another_manager(manager):
    other = make_manager()
    request = Request("a", range(8))
    assert other.allocate(request, 8)
    for call in (manager.free, lambda r: manager.allocate(r, 1), lambda r: manager.commit(r, 1)):
        with pytest.raises(ValueError, match="request 'a' holds pages of another manager"):
            call(request)
    other.free(request)


def test_freed_twice_is_refused(manager):
    request = Request("a", range(8))
    compute(manager, request)
    manager.free(request)
    with pytest.raises(ValueError, match=r"^\[CacheManager.free\] request 'a' holds no pages"):
        manager.free(request)


def test_manager_keeps_requests_alive_while_they_hold_pages(manager):
    compute(manager, Request("a", range(8)))
    gc.collect()
    assert manager.num_requests == 1
    manager.check_invariants()


def test_request_outlives_its_manager():
    request = Request("a", range(8))
    compute(make_manager(), request)
    gc.collect()
    assert not request.is_allocated
    compute(make_manager(), request)


def test_cycle_through_a_request_is_collected():
    class Owner(Request):
        pass

    manager = make_manager()
    request = Owner("a", range(8))
    request.manager = manager
    compute(manager, request)
    gone = weakref.ref(request)
    del manager, request
    gc.collect()
    assert gone() is None


def test_caching_off_finds_nothing():
    manager = make_manager(enable_caching=False)
    compute(manager, Request("a", range(9)))
    assert manager.match(Request("b", range(9))) == 0
    assert (manager.enable_caching, manager.num_cached_pages) == (False, 0)


def test_reset_and_usage(manager):
    assert manager.usage == pytest.approx(1 / 8)
    request = Request("a", range(8))
    compute(manager, request)
    assert manager.usage == pytest.approx(3 / 8)
    assert not manager.reset_prefix_cache()
    manager.free(request)
    assert manager.reset_prefix_cache()
    assert manager.match(request) == 0
