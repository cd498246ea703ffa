"""Pages as Python objects, and the queue of free ones against a plain list."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, PagePool, Request
from pagedkv.hashing import PageHash, PageHashWithGroupId
from pagedkv.pages import CachePage, FreeCachePageQueue, PooledPage, pooled_pages

HASH = PageHashWithGroupId(PageHash(1, (1, 2)), 0)
NUM_PAGES = 8


def ids(pages):
    return [page.page_id for page in pages]


def links(queue):
    """The ids from the first to the last, checked to be the same from the last to the first."""
    forward, page = [], queue.fake_free_list_head.next_free_page
    while page is not queue.fake_free_list_tail:
        forward.append(page.page_id)
        page = page.next_free_page
    backward, page = [], queue.fake_free_list_tail.prev_free_page
    while page is not queue.fake_free_list_head:
        backward.append(page.page_id)
        page = page.prev_free_page
    assert backward == forward[::-1]
    return forward


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("popleft_n"), st.integers(-1, NUM_PAGES + 1)),
        st.tuples(st.just("append_n"), st.lists(st.integers(0, NUM_PAGES - 1), max_size=4)),
        st.tuples(st.sampled_from(["remove", "append"]), st.integers(0, NUM_PAGES - 1)),
        st.tuples(st.just("popleft"), st.none()),
    ),
    max_size=40,
)


@given(first=st.lists(st.integers(0, NUM_PAGES - 1), unique=True), operations=OPERATIONS)
def test_queue_is_a_list(first, operations):
    pages = [CachePage(page_id) for page_id in range(NUM_PAGES)]
    queue, golden = FreeCachePageQueue([pages[i] for i in first]), list(first)
    for name, argument in operations:
        call = getattr(queue, name)
        if name.startswith("popleft"):
            count = 1 if argument is None else argument
            if not 0 <= count <= len(golden):
                with pytest.raises(ValueError, match=f"free pages, cannot take {count}"):
                    call() if argument is None else call(count)
            else:
                popped = call() if argument is None else call(count)
                assert ids([popped] if argument is None else popped) == golden[:count]
                del golden[:count]
        elif name == "remove":
            if argument in golden:
                queue.remove(pages[argument])
                golden.remove(argument)
            else:
                with pytest.raises(ValueError, match=f"page {argument} is not free"):
                    queue.remove(pages[argument])
        else:
            added = argument if name == "append_n" else [argument]
            given_pages = [pages[i] for i in added]
            if len(set(added)) < len(added) or set(added) & set(golden):
                with pytest.raises(ValueError, match="is in a queue already"):
                    call(given_pages if name == "append_n" else given_pages[0])
            else:
                call(given_pages if name == "append_n" else given_pages[0])
                golden += added
        assert links(queue) == ids(queue.get_all_free_pages()) == golden
        assert queue.num_free_pages == len(golden)


def test_queue_refuses_pages_of_another_queue():
    pages = [CachePage(1), CachePage(2)]
    FreeCachePageQueue(pages)
    with pytest.raises(ValueError, match=r"^\[FreeCachePageQueue.append\] page 1 is in a queue"):
        FreeCachePageQueue(pages)


def test_page_counts_its_holders():
    page = CachePage(3)
    page.incr_ref()
    page.decr_ref()
    assert page.ref_cnt == 0
    with pytest.raises(ValueError, match=r"^\[CachePage.decr_ref\] page 3 is not held"):
        page.decr_ref()
    assert page.ref_cnt == 0


def test_page_has_one_hash_until_it_is_reset():
    page = CachePage(3)
    assert page.page_hash is None
    page.page_hash = HASH
    with pytest.raises(ValueError, match=r"^\[CachePage.page_hash\] page 3 has a hash already"):
        page.page_hash = HASH
    page.reset_hash()
    page.page_hash = HASH
    assert page.page_hash == HASH


def test_repr_names_neighbours_and_not_all_pages():
    first, second = CachePage(1), CachePage(2)
    FreeCachePageQueue([first, second])
    assert repr(second) == (
        "CachePage(page_id=2, ref_cnt=0, page_hash=None, prev_free_page=1, next_free_page=-1)"
    )


def test_pooled_page_is_what_its_pool_says():
    pool = PagePool(5)
    page, null = PooledPage(pool, 2), PooledPage(pool, 0)
    assert (page.ref_cnt, page.page_hash, page.is_null, null.is_null) == (0, None, False, True)
    assert ids([page.prev_free_page, page.next_free_page]) == [1, 3]
    assert (null.prev_free_page, PooledPage(pool, 4).next_free_page) == (None, None)
    pool.allocate(2)
    pool.cache(2, bytes(32), group=3)
    assert page.ref_cnt == 1
    assert page.page_hash == PageHashWithGroupId(PageHash(bytes(32), ()), 3)
    assert (page.prev_free_page, page.next_free_page) == (None, None)


def test_pooled_pages_are_equal_if_pool_and_id_are():
    pool, other = PagePool(5), PagePool(5)
    assert PooledPage(pool, 1) == PooledPage(pool, 1)
    assert len({PooledPage(pool, 1), PooledPage(pool, 1), PooledPage(pool, 2)}) == 2
    assert PooledPage(pool, 1) != PooledPage(other, 1)
    assert PooledPage(pool, 1) != CachePage(1)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("incr_ref", lambda page: page.incr_ref()),
        ("decr_ref", lambda page: page.decr_ref()),
        ("reset_hash", lambda page: page.reset_hash()),
        ("page_hash", lambda page: setattr(page, "page_hash", HASH)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_the_pool_changes_its_pages(name, change):
    pool = PagePool(3)
    pool.allocate(1)
    text = rf"[CachePage.{name}] page 1 belongs to a pool, which alone changes it"
    with pytest.raises(TypeError, match=re.escape(text)):
        change(PooledPage(pool, 1))
    assert (pool.ref_count(1), pool.is_cached(1)) == (1, False)


@pytest.mark.parametrize("page_id", [-1, 3, 2**31 - 1])
def test_pooled_page_outside_its_pool_is_refused(page_id):
    page = PooledPage(PagePool(3), page_id)
    for name in ("ref_cnt", "page_hash"):
        with pytest.raises(IndexError, match=f"page must be in \\[1, 3\\), got {page_id}"):
            getattr(page, name)


def test_pages_of_a_manager_follow_it():
    spec = FullAttentionSpec(4, 1, 8, "float32")
    manager = CacheManager(8, [CacheGroupSpec(spec)], 32)
    first, second = pooled_pages(manager.page_pool, [[1, 2], []])
    assert (ids(first), second) == ([1, 2], [])
    request = Request("a", range(8))
    assert manager.allocate(request, 8)
    manager.commit(request, 4)
    assert [page.ref_cnt for page in first] == [1, 1]
    assert [page.page_hash is None for page in first] == [False, True]
    assert first[0].page_hash.page_hash.hash_value == request.page_hash(0)
    assert first[0] == PooledPage(manager.page_pool, 1)
    with pytest.raises(AttributeError):
        manager.page_pool.allocate(1)
