"""PagedAttentionCacheManager: the ids of a queue, and refusals that change nothing."""

import queue
import re
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import PagedAttentionCacheManager


def make_manager(num_pages=9, page_size=4):
    return PagedAttentionCacheManager(
        SimpleNamespace(num_pages_per_layer=num_pages, page_size=page_size)
    )


def test_starts_with_all_pages_but_the_dummy(metadata):
    manager = PagedAttentionCacheManager(metadata)
    assert (manager.page_size, manager.current_page_index) == (4, 0)
    assert manager.num_free_pages == 8
    assert manager.alloc_hbm_pages(8) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert manager.alloc_hbm_pages(1) == []
    assert make_manager(num_pages=1).alloc_hbm_pages(1) == []


@pytest.mark.parametrize(
    ("prompt_len", "num_pages"), [(0, 0), (-5, 0), (1, 1), (4, 1), (5, 2), (32, 8), (33, 0)]
)
def test_gives_a_prompt_its_pages_or_none(prompt_len, num_pages):
    manager = make_manager()
    assert len(manager.alloc_prefill_hbm_pages(prompt_len)) == num_pages
    assert manager.num_free_pages == 8 - num_pages


def test_takes_any_integers():
    manager = make_manager()
    pages = manager.alloc_hbm_pages(np.int32(3))
    assert all(type(page) is int for page in pages)
    manager.free_hbm_pages(np.int64([2, 0]))
    manager.free_hbm_pages(jnp.int32([1]))
    manager.free_hbm_pages(page for page in (3,))
    assert manager.alloc_hbm_pages(8) == [4, 5, 6, 7, 8, 2, 1, 3]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: m.free_hbm_pages([1, 4]), ValueError, "free_hbm_pages] page 4 is not allocated"),
        (lambda m: m.free_hbm_pages([1, 1]), ValueError, "page 1 is not allocated that many times"),
        (lambda m: m.free_hbm_pages([1, 9]), IndexError, "page must be in [1, 9), got 9"),
        (lambda m: m.free_hbm_pages([1, -1]), IndexError, "page must be in [1, 9), got -1"),
        (lambda m: m.free_hbm_pages([2**40]), ValueError, "pages must fit in int32"),
        (lambda m: m.free_hbm_pages([1, 2.0]), TypeError, "pages must be int, got float"),
        (lambda m: m.free_hbm_pages("1"), TypeError, "pages must be int, got str"),
        (lambda m: m.alloc_hbm_pages(1.0), TypeError, "alloc_hbm_pages] n must be int, got float"),
        (lambda m: m.alloc_prefill_hbm_pages(None), TypeError, "prompt_len must be int, got None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_and_changes_nothing(call, error, text):
    manager = make_manager()
    assert manager.alloc_hbm_pages(3) == [1, 2, 3]
    with pytest.raises(error, match=re.escape(text)) as raised:
        call(manager)
    assert str(raised.value).startswith("[PagedAttentionCacheManager.")
    assert manager.alloc_hbm_pages(5) == [4, 5, 6, 7, 8]
    manager.check_invariants()


@given(
    st.integers(2, 12),
    st.integers(1, 5),
    st.lists(
        st.tuples(st.just("prefill"), st.integers(-3, 40))
        | st.tuples(st.just("alloc"), st.integers(-2, 12))
        | st.tuples(st.just("free"), st.lists(st.integers(0, 11), max_size=4)),
        max_size=40,
    ),
)
def test_is_a_queue(num_pages, page_size, calls):
    manager = make_manager(num_pages, page_size)
    free = queue.SimpleQueue()
    for page in range(1, num_pages):
        free.put(page)
    held = set()

    def take(n):
        pages = [free.get() for _ in range(n)] if 0 < n <= free.qsize() else []
        held.update(pages)
        return pages

    for name, argument in calls:
        if name == "prefill":
            expected = take(-(-argument // page_size))
            assert manager.alloc_prefill_hbm_pages(argument) == expected
        elif name == "alloc":
            assert manager.alloc_hbm_pages(argument) == take(argument)
        else:
            given_back = [page for page in argument if page != 0]
            if len(set(given_back)) == len(given_back) and held >= set(given_back):
                manager.free_hbm_pages(argument)
                held.difference_update(given_back)
                for page in given_back:
                    free.put(page)
            else:
                with pytest.raises((ValueError, IndexError)):
                    manager.free_hbm_pages(argument)
        assert manager.num_free_pages == free.qsize()
        manager.check_invariants()
