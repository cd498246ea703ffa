"""PagePool from Python: values, and every error with the state unchanged after it."""

import re

import numpy as np
import pytest
from pagedkv import PagePool

A, B = bytes(32), bytes([1]) * 32


def test_allocates_coldest_first_and_all_or_nothing():
    pool = PagePool(4)
    assert pool.allocate(2).tolist() == [1, 2]
    assert pool.allocate(2) is None
    assert pool.num_free_pages == 1
    assert pool.allocate(0).tolist() == []


def test_finds_content_until_the_page_is_handed_out_again():
    pool = PagePool(3)
    pool.allocate(1)
    pool.cache(1, A)
    pool.free([1])
    assert pool.find(A) == 1
    assert pool.find(B) is None
    assert pool.find(A, group=1) is None
    assert pool.allocate(2).tolist() == [2, 1]
    assert pool.find(A) is None
    assert (pool.num_evictions, pool.num_cached_pages) == (1, 0)


def test_hold_and_free_count():
    pool = PagePool(3)
    pages = pool.allocate(2)
    pool.hold(pages)
    assert pool.ref_count(1) == 2
    pool.free(pages)
    pool.free(np.int64([2, 1]))
    assert pool.ref_count(1) == 0
    assert pool.allocate(2).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: p.free([2]), ValueError, "[PagePool.free] page 2 is not allocated"),
        (lambda p: p.free([1, 1]), ValueError, "page 1 is not allocated that many times"),
        (lambda p: p.free([1, 4]), IndexError, "[PagePool.free] page must be in [1, 4), got 4"),
        (lambda p: p.free([0]), IndexError, "[PagePool.free] page must be in [1, 4), got 0"),
        (lambda p: p.hold([1, -1]), IndexError, "[PagePool.hold] page must be in [1, 4), got -1"),
        (lambda p: p.hold([2**40]), ValueError, "pages must fit in int32, got 1099511627776"),
        (lambda p: p.hold("12"), TypeError, "[PagePool.hold] pages must be a one-dimensional"),
        (lambda p: p.allocate(-1), ValueError, "[PagePool.allocate] count must be >= 0, got -1"),
        (lambda p: p.cache(2, A), ValueError, "[PagePool.cache] page 2 is not allocated"),
        (lambda p: p.cache(1, b"short"), ValueError, "digest must be 16 or 32 bytes, got 5"),
        (
            lambda p: p.cache(1, A, -1),
            ValueError,
            "[PagePool.cache] group must be in [0, 65535), g",
        ),
        (lambda p: p.cache(1, A, 65535), ValueError, "group must be in [0, 65535), got 65535"),
        (lambda p: p.find(b""), ValueError, "[PagePool.find] digest must be 16 or 32 bytes, got 0"),
        (lambda p: p.ref_count(4), IndexError, "[PagePool.ref_count] page must be in [1, 4)"),
        (lambda p: p.is_cached(-1), IndexError, "[PagePool.is_cached] page must be in [1, 4)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_and_changes_nothing(call, error, text):
    pool = PagePool(4)
    pool.allocate(1)
    with pytest.raises(error, match=re.escape(text)):
        call(pool)
    assert [pool.ref_count(page) for page in range(4)] == [0, 1, 0, 0]
    assert (pool.num_free_pages, pool.num_cached_pages) == (2, 0)
    pool.check_invariants()


def test_takes_groups_up_to_the_last():
    pool = PagePool(3)
    pool.allocate(2)
    pool.cache(1, A, 65534)
    pool.cache(2, A, 0)
    assert [pool.find(A, group) for group in (0, 1, 65533, 65534)] == [2, None, None, 1]
    pool.check_invariants()


def test_caches_a_page_once():
    pool = PagePool(2)
    pool.allocate(1)
    pool.cache(1, A)
    with pytest.raises(ValueError, match="page 1 is cached already"):
        pool.cache(1, B)


def test_resets_only_when_idle():
    pool = PagePool(2)
    pool.allocate(1)
    pool.cache(1, A)
    assert not pool.reset_prefix_cache()
    pool.free([1])
    assert pool.reset_prefix_cache()
    assert pool.num_cached_keys == 0


@pytest.mark.parametrize("num_pages", [0, -1])
def test_refuses_a_pool_without_the_null_page(num_pages):
    with pytest.raises(ValueError, match=r"^\[PagePool\] num_pages must be >= 1 "):
        PagePool(num_pages)
