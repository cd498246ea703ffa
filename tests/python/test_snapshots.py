"""A manager restored from a snapshot hits and evicts like the one that the snapshot is of; counters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    FullAttentionSpec,
    MambaSpec,
    Request,
    SlidingWindowSpec,
)

LAYOUT = (4, 1, 8, "float32")
FULL = CacheGroupSpec(FullAttentionSpec(*LAYOUT))
WINDOW = CacheGroupSpec(SlidingWindowSpec(*LAYOUT, sliding_window=6))
STATE = CacheGroupSpec(MambaSpec(4, [(2, 8)], "float32", cache_mode="align"))
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=24)


def make_manager(num_pages=24, groups=(FULL,), max_model_len=64, **options):
    return CacheManager(num_pages, list(groups), max_model_len, **options)


def play(manager, draw):
    """Random prompts, computed in part or whole; some stay."""
    running = []
    for i in range(draw(st.integers(1, 25))):
        request = Request(f"r{i}", draw(TOKENS))
        hit = manager.match(request)
        if manager.allocate(request, request.num_tokens - hit, num_cached_tokens=hit):
            manager.commit(request, draw(st.integers(hit, request.num_tokens)))
            running.append(request)
        while running and draw(st.booleans()):
            manager.free(running.pop(draw(st.integers(0, len(running) - 1))))
    return running


def serve(manager, prompt):
    """All that can be seen of a prompt that is computed on its own."""
    request = Request("storm", prompt)
    hit = manager.match(request)
    done = manager.allocate(request, request.num_tokens - hit, num_cached_tokens=hit)
    assert done
    manager.commit(request, request.num_tokens)
    rows = [manager.page_ids(request, g).tolist() for g in range(manager.num_groups)]
    manager.free(request)
    return hit, rows, manager.num_evictions


@given(data=st.data())
def test_a_restored_manager_hits_and_evicts_alike(data):
    groups = data.draw(st.sampled_from([(FULL,), (WINDOW,), (FULL, WINDOW), (FULL, STATE)]))
    options = {"data_parallel_size": data.draw(st.sampled_from([1, 2, 3]))}
    before = make_manager(groups=groups, **options)
    running = play(before, data.draw)
    snapshot = before.snapshot()
    after = make_manager(groups=groups, **options)
    after.restore(snapshot)
    after.check_invariants()
    assert after.snapshot() == snapshot
    assert after.num_requests == 0
    assert after.num_cached_pages == before.num_cached_pages

    prompts = data.draw(st.lists(TOKENS, min_size=1, max_size=8))
    prompts += [request.tokens.tolist() for request in running]
    for prompt in prompts:
        assert after.match(Request("a", prompt)) == before.match(Request("b", prompt))
    for request in running:
        before.free(request)
    if not running:  # else the pages that were held are freed in another order
        evictions = before.num_evictions
        for prompt in [*prompts, *([i] * 9 for i in range(12)), *prompts]:
            ours, theirs = serve(before, prompt), serve(after, prompt)
            assert (*ours[:2], ours[2] - evictions) == theirs


def test_held_pages_are_the_last_to_be_evicted():
    before, after = make_manager(8), make_manager(8)
    old, held = Request("old", range(8)), Request("held", range(100, 109))
    before.allocate(old, 8)
    before.commit(old, 8)
    before.free(old)
    before.allocate(held, 9)
    before.commit(held, 9)
    order = before.page_pool.free_pages().tolist()
    after.restore(before.snapshot())
    assert before.page_ids(held).tolist() == [3, 4, 5]
    assert after.page_pool.free_pages().tolist() == [*order, 5, 4, 3]
    assert after.num_cached_pages == 4  # page 5 is not full
    assert after.match(Request("again", range(100, 109))) == 8


@given(data=st.data())
def test_damaged_snapshots_are_refused(data):
    before = make_manager()
    play(before, data.draw)
    snapshot = bytearray(before.snapshot())
    for _ in range(data.draw(st.integers(1, 3))):
        snapshot[data.draw(st.integers(0, len(snapshot) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    after = make_manager()
    if snapshot != before.snapshot():
        with pytest.raises(ValueError, match=r"^\[CacheManager.restore\] the"):
            after.restore(bytes(snapshot))
    size = data.draw(st.integers(0, len(snapshot) - 1))
    with pytest.raises(ValueError, match=r"^\[CacheManager.restore\] the"):
        after.restore(before.snapshot()[:size])
    assert after.num_cached_pages == 0
    after.check_invariants()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"num_pages": 25}, "has num_pages 24, this manager 25"),
        ({"groups": (FULL, WINDOW)}, "has a number of groups 1, this manager 2"),
        ({"groups": (WINDOW,)}, "group 0 of another spec: full_attention_4_256, this manager "),
        ({"hash_algorithm": "pagedkv"}, "hash algorithm sha256_cbor, this manager pagedkv"),
        ({"hash_seed": "else"}, "another hash_seed"),
        ({"hash_page_size": 2}, "hash_page_size 4, this manager 2"),
        ({"enable_caching": False}, "caching is off"),
    ],
)
def test_other_configurations_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        make_manager(**other).restore(make_manager().snapshot())


def test_only_empty_managers_are_restored():
    snapshot, manager = make_manager().snapshot(), make_manager()
    request = Request("a", range(9))
    manager.allocate(request, 9)
    with pytest.raises(ValueError, match="must be empty, it has 1 requests with pages"):
        manager.restore(snapshot)
    assert manager.page_ids(request).tolist() == [1, 2, 3]
    with pytest.raises(TypeError):
        manager.restore("text")


class NaiveCount:
    """The counters of `stats()`, from what can be seen between calls that do one thing each."""

    def __init__(self, manager):
        self.manager = manager
        self.held = {}  # request: its pages
        self.allocated = self.reused = self.freed = self.cached = self.failed = 0
        self.peak_pages = self.peak_requests = 0

    def holders(self, page):
        return sum(page in pages for pages in self.held.values())

    def admit(self, request):
        manager = self.manager
        hit = manager.match(request)
        pool = manager.page_pool
        if not manager.allocate(request, request.num_tokens - hit, num_cached_tokens=hit):
            self.failed += 1
            return
        pages = manager.page_ids(request).tolist()
        num_hit = hit // manager.page_size
        self.reused += sum(self.holders(page) == 0 for page in pages[:num_hit])
        self.allocated += len(pages) - num_hit
        self.held[request] = pages
        before = sum(pool.is_cached(page) for page in pages)
        manager.commit(request, request.num_tokens)
        self.cached += sum(pool.is_cached(page) for page in pages) - before
        self.peak_pages = max(self.peak_pages, len(set().union(*self.held.values())))
        self.peak_requests = max(self.peak_requests, len(self.held))

    def free(self, request):
        pages = self.held.pop(request)
        self.freed += sum(self.holders(page) == 0 for page in pages)
        self.manager.free(request)

    def check(self):
        stats = self.manager.stats()
        assert stats.num_held_pages == len(set().union(*self.held.values()))
        assert stats.num_requests == len(self.held)
        assert stats.peak_held_pages == self.peak_pages
        assert stats.peak_requests == self.peak_requests
        assert stats.num_pages_allocated == self.allocated
        assert stats.num_pages_reused == self.reused
        assert stats.num_pages_freed == self.freed
        assert stats.num_pages_cached == self.cached
        assert stats.num_pages_evicted == self.manager.num_evictions
        assert stats.num_failed_allocations == self.failed


@given(data=st.data())
def test_counters_agree_with_a_naive_count(data):
    naive = NaiveCount(make_manager(12))
    for i in range(data.draw(st.integers(1, 30))):
        if naive.held and data.draw(st.booleans()):
            naive.free(data.draw(st.sampled_from(sorted(naive.held, key=lambda r: r.request_id))))
        else:
            naive.admit(Request(f"r{i}", data.draw(TOKENS)))
        naive.check()


def test_requests_that_leak_are_named():
    manager = make_manager(64)
    manager.assert_no_leaks()
    requests = [Request(f"r{i}", range(i + 1)) for i in range(12)]
    for request in requests:
        manager.allocate(request, request.num_tokens)
    message = r"12 requests still hold pages: 'r0' 1, 'r1' 1, .*'r9' 3 and 2 more$"
    with pytest.raises(AssertionError, match=r"^\[CacheManager.assert_no_leaks\] " + message):
        manager.assert_no_leaks()
    for request in requests:
        manager.free(request)
    manager.assert_no_leaks()


def test_stats_are_a_copy_that_shows_itself():
    manager = make_manager()
    stats = manager.stats()
    request = Request("a", range(9))
    manager.allocate(request, 9)
    assert stats.num_held_pages == 0
    assert "num_held_pages=3, peak_held_pages=3, num_requests=1" in repr(manager.stats())
    with pytest.raises(AttributeError):
        stats.num_held_pages = 5
