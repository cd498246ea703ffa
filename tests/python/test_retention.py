"""What is kept when requests have gone: priorities, time limits, pins, quotas, and free orders.

The stories come first. `NaiveManager` then says, by scanning lists of all pages, which page goes next,
and any sequence of calls must give the same pages as `CacheManager`.
"""

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    FullAttentionSpec,
    Request,
    Retention,
    RetentionRange,
)

PAGE_SIZE = 4


def make_manager(num_pages=17, **options):
    spec = FullAttentionSpec(PAGE_SIZE, 1, 8, "float32")
    return CacheManager(num_pages, [CacheGroupSpec(spec)], 64, **options)


def compute(manager, request):
    """Makes room for all tokens and commits them. Returns how many were in the cache."""
    cached = manager.match(request)
    assert manager.allocate(request, request.num_tokens - cached, num_cached_tokens=cached)
    manager.commit(request, request.num_tokens)
    return cached


def serve(manager, tokens, retention=None):
    request = Request("served", tokens, retention=retention)
    cached = compute(manager, request)
    manager.free(request)
    manager.check_invariants()
    return cached


def num_cached(manager, tokens):
    """How many leading tokens are cached, in whole pages."""
    return manager.match(Request("probe", [*tokens, -1]))


def storm(manager, first=1000, num_requests=50):
    """Requests that share nothing and together evict every page that may be evicted."""
    for i in range(num_requests):
        serve(manager, range(first + 100 * i, first + 100 * i + 8))


SYSTEM_PROMPT = range(12)


# --- stories --------------------------------------------------------------------------------------


def test_without_retention_a_storm_evicts_the_system_prompt():
    manager = make_manager()
    serve(manager, SYSTEM_PROMPT)
    storm(manager)
    assert num_cached(manager, SYSTEM_PROMPT) == 0


def test_pinned_system_prompt_survives_a_storm():
    manager = make_manager()
    request = Request("system", SYSTEM_PROMPT)
    compute(manager, request)
    pin = manager.pin(request)
    manager.free(request)
    assert (manager.num_pinned_pages, manager.num_free_pages) == (3, 13)
    storm(manager)
    assert num_cached(manager, SYSTEM_PROMPT) == 12
    assert not manager.reset_prefix_cache()
    manager.unpin(pin)
    assert (manager.num_pinned_pages, manager.num_free_pages) == (0, 16)
    storm(manager, first=100_000)
    assert num_cached(manager, SYSTEM_PROMPT) == 0


def test_system_prompt_of_high_priority_survives_a_storm_but_not_need():
    manager = make_manager()
    serve(manager, SYSTEM_PROMPT, Retention(priority=90))
    storm(manager)
    assert num_cached(manager, SYSTEM_PROMPT) == 12
    assert manager.num_free_pages == 16, "it is no pin"
    serve(manager, range(500, 564))  # needs all 16 pages
    assert num_cached(manager, SYSTEM_PROMPT) == 0


def test_low_priority_goes_first():
    manager = make_manager()
    serve(manager, range(100, 116))
    serve(manager, SYSTEM_PROMPT, Retention(priority=10))
    serve(manager, range(200, 236))  # 9 pages are blank
    assert num_cached(manager, SYSTEM_PROMPT) == 12
    serve(manager, range(300, 304))
    assert num_cached(manager, SYSTEM_PROMPT) == 8, "though the others are colder"
    assert num_cached(manager, range(100, 116)) == 16


def test_a_time_limit_expires():
    manager = make_manager()
    manager.advance_time(1_000)
    serve(manager, SYSTEM_PROMPT, Retention(priority=90, ttl=60))
    manager.advance_time(1_059)
    storm(manager)
    assert num_cached(manager, SYSTEM_PROMPT) == 12
    manager.advance_time(1_060)
    storm(manager, first=100_000)
    assert num_cached(manager, SYSTEM_PROMPT) == 0


def test_each_use_starts_the_time_anew():
    manager = make_manager()
    retention = Retention(priority=90, ttl=60)
    for now in range(0, 500, 50):
        manager.advance_time(now)
        storm(manager, first=1000 * (now + 1), num_requests=10)
        assert serve(manager, [*SYSTEM_PROMPT, -1], retention) == (12 if now else 0)


def test_tenant_over_quota_evicts_its_own_first():
    manager = make_manager()
    noisy, quiet = Retention(tenant=1), Retention(tenant=2)
    manager.set_tenant_quota(1, 4)
    serve(manager, range(100, 116), quiet)
    for i in range(20):
        serve(manager, range(1000 * (i + 1), 1000 * (i + 1) + 8), noisy)
        assert manager.num_tenant_pages(1) <= 4
    assert num_cached(manager, range(100, 116)) == 16
    assert num_cached(manager, range(20_000, 20_008)) == 8
    assert manager.num_tenant_pages(2) == 4


def test_quota_is_no_refusal():
    manager = make_manager()
    manager.set_tenant_quota(1, 0)
    request = Request("a", range(64), retention=Retention(tenant=1))
    assert compute(manager, request) == 0
    assert manager.num_tenant_pages(1) == 16
    manager.free(request)
    serve(manager, range(500, 512))
    assert manager.num_tenant_pages(1) == 13
    manager.set_tenant_quota(1, None)


def test_ranges_of_the_prompt_and_decoded_tokens():
    manager = make_manager()
    retention = Retention(
        priority=30, tenant=5, ranges=[RetentionRange(0, 6, priority=90, ttl=9)], decode_priority=5
    )
    request = Request("a", range(12), retention=retention)
    compute(manager, request)
    request.append(range(12, 18))
    manager.allocate(request, 6)
    terms = [manager.page_pool.term(page) for page in manager.page_ids(request).tolist()]
    assert terms == [(90, 9, 5), (90, 9, 5), (30, None, 5), (5, None, 5), (5, None, 5)]


def test_the_strongest_of_those_who_share_a_page_wins():
    manager = make_manager()
    serve(manager, range(8), Retention(priority=60, ttl=5, tenant=1))
    serve(manager, range(9), Retention(priority=80, tenant=2))
    serve(manager, range(9), Retention(priority=20))
    page = manager.page_pool.find(page_digest(manager, range(9), 0))
    assert manager.page_pool.term(page) == (80, None, 1)


def page_digest(manager, tokens, page):
    request = Request("named", tokens)
    manager.match(request)
    return request.page_hash(page)


def test_retention_works_in_step_calls():
    manager = make_manager()
    request = Request("a", SYSTEM_PROMPT, retention=Retention(priority=90))
    handles = manager.add_requests([request])
    manager.allocate_step(handles, [12])
    manager.commit_step(handles, [12])
    manager.remove_requests(handles)
    storm(manager)
    assert num_cached(manager, SYSTEM_PROMPT) == 12


def test_uncached_first_keeps_content():
    tails = {}
    for order in ("lru", "uncached_first"):
        manager = make_manager(free_order=order)
        for i in range(40):
            serve(manager, range(100 * i, 100 * i + 5))  # one full page and one that is not
        tails[order] = manager.num_cached_pages
    # 16 pages: in turn with LRU, all but the blank one in use with the other.
    assert tails == {"lru": 8, "uncached_first": 15}


# --- arguments ------------------------------------------------------------------------------------


def test_retention_shows_what_it_was_given():
    retention = Retention(70, ttl=5, tenant=3, decode_ttl=2)
    assert (retention.priority, retention.ttl, retention.tenant) == (70, 5, 3)
    assert (retention.ranges, retention.decode_priority, retention.decode_ttl) == ([], 70, 2)
    assert repr(RetentionRange(3)) == "RetentionRange(3, None, priority=50, ttl=None)"
    assert Request("a", [1]).retention is None
    assert Request("a", [1], retention=retention).retention.priority == 70


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: Retention(101), r"\[Retention\] priority must be in \[0, 100\], got 101"),
        (lambda m: Retention(ttl=0), "ttl must be >= 1, got 0"),
        (lambda m: Retention(tenant=-1), "tenant must be >= 0, got -1"),
        (lambda m: Retention(decode_priority=-1), "got -1"),
        (lambda m: RetentionRange(4, 4), r"a range must have 0 <= begin < end, got \[4, 4\)"),
        (lambda m: RetentionRange(0, priority=101), "got 101"),
        (lambda m: m.set_tenant_quota(-1, 3), "tenant must be >= 0, got -1"),
        (lambda m: m.set_tenant_quota(1, -3), "max_pages must be >= 0, got -3"),
        (lambda m: m.num_tenant_pages(-1), "tenant must be >= 0, got -1"),
        (lambda m: m.advance_time(-1), "the time was 0 already, got -1"),
        (lambda m: m.unpin(1), r"\[CacheManager.unpin\] there is no pin 1"),
        (lambda m: m.pin(Request("a", [1])), r"\[CacheManager.pin\] request 'a' holds no pages"),
        (lambda m: make_manager(free_order="fifo"), "must be lru or uncached_first, got fifo"),
        (lambda m: make_manager(as_easydel=True, prefer_contiguous=True), "as_easydel needs"),
    ],
)
def test_refuses_what_is_out_of_range(call, text):
    manager = make_manager()
    with pytest.raises(ValueError, match=text):
        call(manager)
    assert (manager.now, manager.num_pinned_pages, manager.num_free_pages) == (0, 0, 16)


def test_pin_of_another_managers_request_is_refused():
    request = Request("a", range(8))
    manager = make_manager()
    compute(manager, request)
    with pytest.raises(ValueError, match="pages of another manager"):
        make_manager().pin(request)


# --- exact LRU when unused ------------------------------------------------------------------------


class NaiveLru:
    """One list of free pages, coldest first, and a dict of what each holds."""

    def __init__(self, num_pages):
        self.free = list(range(1, num_pages))
        self.refs = dict.fromkeys(self.free, 0)
        self.content = {}
        self.evicted = []

    def start(self, tokens):
        row = []
        for end in range(PAGE_SIZE, len(tokens), PAGE_SIZE):
            page = next((p for p, t in self.content.items() if t == tokens[:end]), None)
            if page is None:
                break
            row.append(page)
        num_new = -(-len(tokens) // PAGE_SIZE) - len(row)
        if num_new > len([p for p in self.free if p not in row]):
            return None
        for page in row:
            self.refs[page] += 1
            if page in self.free:
                self.free.remove(page)
        for _ in range(num_new):
            page = self.free.pop(0)
            if self.content.pop(page, None):
                self.evicted.append(page)
            self.refs[page] = 1
            row.append(page)
        for i, page in enumerate(row):
            if (i + 1) * PAGE_SIZE <= len(tokens):
                self.content.setdefault(page, tokens[: (i + 1) * PAGE_SIZE])
        return row

    def stop(self, row):
        for page in reversed(row):
            self.refs[page] -= 1
            if self.refs[page] == 0:
                self.free.append(page)


@pytest.mark.parametrize("is_idle", [False, True], ids=["unused", "idle"])
def test_evictions_are_exact_lru(is_idle):
    """Without retention; and with all of it, where it asks for nothing that is not the default."""
    rng = random.Random(7)
    manager, naive = make_manager(24), NaiveLru(24)
    if is_idle:
        manager.set_tenant_quota(1, 0)
    running, evicted = [], []
    for step in range(6000):
        if is_idle:
            manager.advance_time(step)
        if running and rng.random() < 0.5:
            request, row = running.pop(rng.randrange(len(running)))
            manager.free(request)
            naive.stop(row)
            continue
        tokens = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 24)))
        retention = Retention(tenant=9, ttl=3) if is_idle and step % 2 else None
        request = Request(f"r{step}", tokens, retention=retention)
        cached = manager.match(request)
        before = manager.page_pool
        content = {p for p in range(1, 24) if before.is_cached(p) and before.ref_count(p) == 0}
        done = manager.allocate(request, len(tokens) - cached, num_cached_tokens=cached)
        row = naive.start(tokens)
        assert done == (row is not None)
        if not done:
            continue
        pages = manager.page_ids(request).tolist()
        assert pages == row
        evicted += [p for p in pages[cached // PAGE_SIZE :] if p in content]
        manager.commit(request, len(tokens))
        running.append((request, row))
    assert evicted == naive.evicted
    assert len(evicted) == manager.num_evictions > 3000


# --- contiguous allocation ------------------------------------------------------------------------


def run_lengths(pages):
    lengths = [1]
    for left, right in pairwise(pages):
        if right == left + 1:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return lengths


def random_workload(seed, **options):
    """Chunked prompts that share prefixes, and decodes. Gives hits, evictions and run lengths."""
    rng = random.Random(seed)
    manager = make_manager(400, **options)
    running, lengths, hits = [], [], 0
    for step in range(1500):
        if len(running) > 20 or (running and rng.random() < 0.3):
            request = running.pop(rng.randrange(len(running)))
            lengths += run_lengths(manager.page_ids(request).tolist())
            manager.free(request)
        family = rng.randrange(60)
        tokens = [*range(100 * family, 100 * family + 4 * rng.randrange(1, 8)), -step - 1]
        request = Request(f"r{step}", tokens)
        cached = manager.match(request)
        assert manager.allocate(request, len(tokens) - cached, num_cached_tokens=cached)
        manager.commit(request, len(tokens))
        hits += cached
        running.append(request)
        for request in running:
            if request.num_tokens < 64:
                request.append(step)
                assert manager.allocate(request, 1)
                manager.commit(request, request.num_tokens)
    manager.check_invariants()
    return hits, manager.num_evictions, sum(lengths) / len(lengths)


@pytest.mark.parametrize("free_order", ["lru", "uncached_first"])
def test_contiguous_rows_cost_no_hits(free_order):
    for seed in range(3):
        hits, evictions, length = random_workload(seed, free_order=free_order)
        new_hits, new_evictions, new_length = random_workload(
            seed, free_order=free_order, prefer_contiguous=True
        )
        assert new_hits >= hits
        assert new_evictions <= evictions
        assert new_length > length


# --- any sequence of calls ------------------------------------------------------------------------


@dataclass
class NaivePage:
    refs: int = 0
    tokens: tuple | None = None  # up to the page's end, if it can be found
    cached_at: int = 0
    term: tuple = (50, None, None)  # priority, time limit, tenant
    freed_at: int = 0
    expires_at: int | None = None


@dataclass
class NaiveManager:
    """Pages in a dict; whatever is asked of them is found by looking at all."""

    num_pages: int
    uncached_first: bool
    contiguous: bool
    pages: dict = field(default_factory=dict)
    quotas: dict = field(default_factory=dict)
    now: int = 0
    clock: int = 0

    def __post_init__(self):
        for page in range(1, self.num_pages):
            self.pages[page] = NaivePage(freed_at=self.tick())

    def tick(self):
        self.clock += 1
        return self.clock

    def usage(self, tenant):
        return sum(
            p.term[2] == tenant and (p.refs > 0 or p.tokens is not None)
            for p in self.pages.values()
        )

    def room(self, tenant):
        return self.quotas.get(tenant, 10**9) - self.usage(tenant)

    def free(self):
        return [number for number, page in self.pages.items() if page.refs == 0]

    def must_go(self, tenant):
        """Pages that a quota makes the next victims of an allocation for `tenant`."""
        full = [n for n in self.free() if self.pages[n].tokens is not None]
        own = [n for n in full if self.pages[n].term[2] == tenant and self.room(tenant) <= 0]
        return own or [n for n in full if self.room(self.pages[n].term[2]) < 0]

    def victim(self, tenant):
        def rank(number):
            return self.pages[number].term[0], self.pages[number].freed_at

        forced = self.must_go(tenant)
        if forced:
            return min(forced, key=rank)
        blank = [n for n in self.free() if self.pages[n].tokens is None]
        full = [n for n in self.free() if self.pages[n].tokens is not None]
        best_blank = min(blank, key=lambda n: self.pages[n].freed_at, default=None)
        best_full = min(full, key=rank, default=None)
        if best_blank is None or best_full is None:
            return best_full if best_blank is None else best_blank
        is_default = self.pages[best_full].term[0] == 50 and not self.uncached_first
        if is_default and self.pages[best_full].freed_at < self.pages[best_blank].freed_at:
            return best_full
        return best_blank

    def hand_out(self, number, term):
        self.pages[number] = NaivePage(refs=1, term=term)
        return number

    def allocate(self, row, terms):
        """Appends a page on each of `terms` to `row`."""
        while terms:
            same = next((i for i, term in enumerate(terms) if term != terms[0]), len(terms))
            term, added = terms[0], []
            while self.contiguous and row and len(added) < same:
                after = self.pages.get((added or row)[-1] + 1)
                if after is None or after.refs or after.tokens is not None:
                    break
                if self.must_go(term[2]):
                    break
                added.append(self.hand_out((added or row)[-1] + 1, term))
            rest = [self.hand_out(self.victim(term[2]), term) for _ in range(same - len(added))]
            row += added + (sorted(rest) if self.contiguous else rest)
            terms = terms[same:]

    def find(self, tokens):
        found = [n for n, page in self.pages.items() if page.tokens == tokens]
        return min(found, key=lambda n: self.pages[n].cached_at, default=None)

    def prefix(self, tokens):
        row = []
        for end in range(PAGE_SIZE, len(tokens), PAGE_SIZE):
            page = self.find(tokens[:end])
            if page is None:
                break
            row.append(page)
        return row

    def hold(self, number, term=None):
        page = self.pages[number]
        page.refs += 1
        if term is not None:
            stronger = max(page.term[:2], term[:2], key=lambda t: (t[0], t[1] or 10**9))
            page.term = (*stronger, page.term[2])

    def give_back(self, numbers):
        gone = []
        for number in numbers:
            self.pages[number].refs -= 1
            if self.pages[number].refs == 0:
                gone.append(number)
        for number in reversed(gone) if self.uncached_first else ():
            if self.pages[number].tokens is None:
                self.pages[number].freed_at = -self.tick()
        for number in gone:
            page = self.pages[number]
            if page.tokens is None:
                page.term = (50, None, None)
            if page.tokens is not None or not self.uncached_first:
                page.freed_at = self.tick()
            page.expires_at = None if page.term[1] is None else self.now + page.term[1]

    def advance(self, now):
        self.now = now
        for page in self.pages.values():
            is_kept = page.refs == 0 and page.expires_at is not None
            if is_kept and page.expires_at <= now:
                page.term, page.expires_at = (50, None, page.term[2]), None


class RetentionMachine(RuleBasedStateMachine):
    free_order, contiguous = "lru", False

    def __init__(self):
        super().__init__()
        self.manager = make_manager(
            14, free_order=self.free_order, prefer_contiguous=self.contiguous
        )
        self.naive = NaiveManager(14, self.free_order == "uncached_first", self.contiguous)
        self.running = {}  # request -> its row in the naive manager
        self.pins = {}
        self.count = 0

    @staticmethod
    def term_of(request, page):
        """As `Retention` has it, from token to token."""
        wanted = request.retention
        if wanted is None:
            return (50, None, None)
        found = []
        for token in range(page * PAGE_SIZE, (page + 1) * PAGE_SIZE):
            if token >= request.num_prompt:
                found.append((wanted.decode_priority, wanted.decode_ttl))
                continue
            ranges = [r for r in wanted.ranges if r.start <= token < (r.end or 10**9)]
            found += [(r.priority, r.ttl) for r in ranges] or [(wanted.priority, wanted.ttl)]
        found = [(priority, None if priority == 50 else ttl) for priority, ttl in found]
        return (*max(found, key=lambda t: (t[0], t[1] or 10**9)), wanted.tenant)

    terms = st.fixed_dictionaries(
        {
            "priority": st.sampled_from([0, 30, 50, 50, 90]),
            "ttl": st.none() | st.integers(1, 6),
        }
    )

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=22),
        term=terms,
        tenant=st.none() | st.integers(0, 2),
        ranges=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9), terms), max_size=2),
        decode=st.none() | terms,
        is_plain=st.booleans(),
    )
    def start(self, tokens, term, tenant, ranges, decode, is_plain):
        retention = Retention(
            **term,
            tenant=tenant,
            ranges=[RetentionRange(begin, begin + size, **term) for begin, size, term in ranges],
            decode_priority=decode and decode["priority"],
            decode_ttl=decode and decode["ttl"],
        )
        self.count += 1
        request = NumberedRequest(
            f"r{self.count}", tokens, retention=None if is_plain else retention
        )
        request.num_prompt = len(tokens)
        cached = self.manager.match(request)
        row = self.naive.prefix(tuple(tokens))
        assert cached == PAGE_SIZE * len(row)
        num_pages = -(-len(tokens) // PAGE_SIZE)
        num_free = len([n for n in self.naive.free() if n not in row])
        done = self.manager.allocate(request, len(tokens) - cached, num_cached_tokens=cached)
        assert done == (num_pages - len(row) <= num_free)
        if not done:
            return
        for i, page in enumerate(row):
            self.naive.hold(page, self.term_of(request, i))
        terms = [self.term_of(request, i) for i in range(len(row), num_pages)]
        self.naive.allocate(row, terms)
        self.running[request] = row

    def pick(self, data):
        return data.draw(st.sampled_from(list(self.running)), "request") if self.running else None

    @rule(data=st.data())
    def commit(self, data):
        request = self.pick(data)
        if request is None:
            return
        num_tokens = data.draw(
            st.integers(request.num_computed_tokens, request.num_tokens), "computed"
        )
        num_tokens = min(num_tokens, self.manager.num_allocated_tokens(request))
        self.manager.commit(request, num_tokens)
        tokens = tuple(request.tokens.tolist())
        for i, number in enumerate(self.running[request][: num_tokens // PAGE_SIZE]):
            if self.naive.pages[number].tokens is None:
                self.naive.pages[number].tokens = tokens[: (i + 1) * PAGE_SIZE]
                self.naive.pages[number].cached_at = self.naive.tick()

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9), data=st.data())
    def decode(self, tokens, data):
        request = self.pick(data)
        if request is None or request.num_tokens + len(tokens) > 40:
            return
        request.append(tokens)
        row = self.running[request]
        num_new = request.num_tokens - request.num_computed_tokens
        num_added = -(-request.num_tokens // PAGE_SIZE) - len(row)
        done = self.manager.allocate(request, num_new)
        assert done == (num_added <= len(self.naive.free()))
        if done:
            terms = [self.term_of(request, len(row) + i) for i in range(num_added)]
            self.naive.allocate(row, terms)

    @rule(data=st.data())
    def free(self, data):
        request = self.pick(data)
        if request is not None:
            self.manager.free(request)
            self.naive.give_back(reversed(self.running.pop(request)))

    @rule(data=st.data())
    def pin(self, data):
        request = self.pick(data)
        if request is None:
            return
        pages = [n for n in self.running[request] if self.naive.pages[n].tokens is not None]
        if not pages:
            with pytest.raises(ValueError, match="no committed pages"):
                self.manager.pin(request)
            return
        for page in pages:
            self.naive.hold(page)
        self.pins[self.manager.pin(request)] = pages

    @rule(data=st.data())
    def unpin(self, data):
        if self.pins:
            pin = data.draw(st.sampled_from(list(self.pins)), "pin")
            self.manager.unpin(pin)
            self.naive.give_back(reversed(self.pins.pop(pin)))

    @rule(step=st.integers(0, 4))
    def advance(self, step):
        self.manager.advance_time(self.manager.now + step)
        self.naive.advance(self.manager.now)

    @rule(tenant=st.integers(0, 2), quota=st.none() | st.integers(0, 8))
    def set_quota(self, tenant, quota):
        self.manager.set_tenant_quota(tenant, quota)
        self.naive.quotas.pop(tenant, None)
        if quota is not None:
            self.naive.quotas[tenant] = quota

    @rule()
    def reset(self):
        is_idle = not self.running and not self.pins
        assert self.manager.reset_prefix_cache() == is_idle
        if is_idle:
            for page in self.naive.pages.values():
                page.tokens, page.term, page.expires_at = None, (50, None, None), None

    @invariant()
    def agree(self):
        self.manager.check_invariants()
        pool = self.manager.page_pool
        for number, page in self.naive.pages.items():
            assert pool.ref_count(number) == page.refs
            assert pool.is_cached(number) == (page.tokens is not None)
            assert pool.term(number) == page.term
        for request, row in self.running.items():
            assert self.manager.page_ids(request).tolist() == row
        for tenant in range(3):
            assert self.manager.num_tenant_pages(tenant) == self.naive.usage(tenant)
        assert self.manager.num_pinned_pages == len({n for ns in self.pins.values() for n in ns})


class NumberedRequest(Request):
    """Remembers how many tokens it was made with."""


def machine_of(free_order, contiguous):
    values = {"free_order": free_order, "contiguous": contiguous}
    return type("Machine", (RetentionMachine,), values).TestCase


TestLru = machine_of("lru", False)
TestLruContiguous = machine_of("lru", True)
TestUncachedFirst = machine_of("uncached_first", False)
TestUncachedFirstContiguous = machine_of("uncached_first", True)
