"""Calls that take a whole step: they do what the calls for one request do, and every error."""

import gc
import random
import re
import weakref

import numpy as np
import pytest
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    Request,
    SlidingWindowSpec,
)

LAYOUT = (4, 1, 8, "float32")
FULL = CacheGroupSpec(FullAttentionSpec(*LAYOUT))
WINDOW = CacheGroupSpec(SlidingWindowSpec(*LAYOUT, sliding_window=6))
CHUNK = CacheGroupSpec(ChunkedLocalAttentionSpec(*LAYOUT, attention_chunk_size=12))
BIG = CacheGroupSpec(FullAttentionSpec(8, 1, 8, "float32"))
STATE = CacheGroupSpec(MambaSpec(4, [(2, 8)], "float32"))
CHECKPOINTS = CacheGroupSpec(MambaSpec(4, [(2, 8)], "float32", cache_mode="align"))


def int32(*values):
    return np.array(values, np.int32)


@pytest.fixture
def manager():
    return CacheManager(12, [FULL], max_model_len=64)


class Twins:
    """Two managers that get the same requests: one call a step, and one call a request."""

    def __init__(self, num_pages, groups, **options):
        self.steps, self.ones = (
            CacheManager(num_pages, groups, max_model_len=64, **options) for _ in range(2)
        )
        self.groups = groups
        self.requests = {}  # handle: the twins of a request

    def add(self, tokens):
        twins = [Request("r", tokens) for _ in range(2)]
        handle = int(self.steps.add_requests(twins[:1])[0])
        self.requests[handle] = twins
        return handle

    def one(self, handle):
        return self.requests[handle][1]

    def check(self, handles):
        """All that can be seen of the requests with pages is the same."""
        held = [handle for handle in handles if self.one(handle).is_allocated]
        keys = np.array(held, np.int64)
        ones = [self.one(handle) for handle in held]
        for group, spec in enumerate(self.groups):
            table = self.steps.page_table(keys, group=group)
            np.testing.assert_array_equal(table, self.ones.page_table(ones, group=group))
            if not isinstance(spec.kv_cache_spec, MambaSpec):
                room = [self.ones.num_allocated_tokens(r) - r.num_computed_tokens for r in ones]
                np.testing.assert_array_equal(
                    self.steps.slot_mapping(keys, int32(*room), group=group),
                    self.ones.slot_mapping(ones, room, group=group),
                )
        for name in ("num_free_pages", "num_cached_pages", "num_evictions", "num_requests"):
            assert getattr(self.steps, name) == getattr(self.ones, name)

    def allocate(self, handles, counts, cached, num_lookahead):
        before = [self._rows(handle) for handle in handles]
        grant = self.steps.allocate_step(
            np.array(handles, np.int64),
            int32(*counts),
            num_cached_tokens=int32(*cached),
            num_lookahead_tokens=num_lookahead,
        )
        for handle, count, hit in list(zip(handles, counts, cached, strict=True))[
            : grant.num_requests
        ]:
            assert self.ones.allocate(
                self.one(handle), count, num_cached_tokens=hit, num_lookahead_tokens=num_lookahead
            )
        if grant.num_requests < len(handles):
            i = grant.num_requests
            options = {"num_lookahead_tokens": num_lookahead, "num_cached_tokens": cached[i]}
            try:
                answer = self.ones.allocate(self.one(handles[i]), counts[i], **options)
            except ValueError as error:  # a request before it has taken the pages
                answer = "match again" not in str(error)
            assert answer is False
        after = [self._rows(handle) for handle in handles]
        changed = [i for i in range(len(handles)) if before[i] != after[i]]
        assert set(changed) <= set(grant.changed_rows.tolist())
        for group in range(len(self.groups)):
            ids, offsets = grant.new_page_ids(group), grant.new_page_offsets(group)
            assert len(offsets) == grant.num_requests + 1
            for i in range(grant.num_requests):
                added = after[i][group][len(before[i][group]) :]
                assert ids[offsets[i] : offsets[i + 1]].tolist() == added
        return grant.num_requests

    def _rows(self, handle):
        request = self.one(handle)
        if not request.is_allocated:
            return [[] for _ in self.groups]
        return [self.ones.page_ids(request, g).tolist() for g in range(len(self.groups))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "groups",
    [[FULL], [FULL, WINDOW], [CHUNK, FULL], [BIG, FULL], [FULL, STATE], [WINDOW, CHECKPOINTS]],
    ids=["full", "window", "chunk", "page sizes", "state", "checkpoints"],
)
def test_steps_do_what_single_calls_do(groups, seed):
    rng = random.Random(seed)
    twins = Twins(rng.choice([12, 30, 60]), groups, use_eagle=seed % 3 == 0)
    for _ in range(60):
        while len(twins.requests) < 6:
            prompt = [0] * rng.randint(0, 24) + [1] * rng.randint(0, 9) + [2]
            twins.add(prompt)
        handles = rng.sample(list(twins.requests), rng.randint(0, 6))
        keys = np.array(handles, np.int64)
        cached = twins.steps.match_requests(keys).tolist()
        assert cached == [twins.ones.match(twins.one(handle)) for handle in handles]
        counts = []
        for handle, hit in zip(handles, cached, strict=True):
            request = twins.one(handle)
            left = request.num_tokens - request.num_computed_tokens - hit
            counts.append(rng.randint(1, left))
        num_fit = twins.allocate(handles, counts, cached, rng.choice([0, 0, 3]))
        twins.check(handles)
        fitting, counts = handles[:num_fit], counts[:num_fit]
        twins.steps.commit_step(keys[:num_fit], int32(*counts))
        for handle, count in zip(fitting, counts, strict=True):
            request = twins.one(handle)
            twins.ones.commit(request, request.num_computed_tokens + count)
        done = [h for h in fitting if twins.one(h).num_computed_tokens == twins.one(h).num_tokens]
        twins.steps.append_tokens(np.array(done, np.int64), int32(*([3] * len(done))))
        for handle in done:
            twins.one(handle).append(3)
        leaving = [h for h in twins.requests if rng.random() < 0.1 or twins.one(h).num_tokens > 60]
        is_over = rng.random() < 0.5
        change = twins.steps.remove_requests if is_over else twins.steps.free_requests
        change(np.array(leaving, np.int64))
        for handle in leaving:
            if twins.one(handle).is_allocated:
                twins.ones.free(twins.one(handle))
            if is_over or twins.one(handle).num_tokens > 60:
                twins.requests.pop(handle)
        twins.check(twins.requests)
        twins.steps.check_invariants()


def test_a_step_stops_at_the_first_that_does_not_fit(manager):
    requests = [Request(name, range(20)) for name in "abc"]
    handles = manager.add_requests(requests)
    grant = manager.allocate_step(handles, int32(20, 20, 20))
    assert (grant.num_requests, grant.changed_rows.tolist()) == (2, [0, 1])
    assert grant.new_page_ids().tolist() == list(range(1, 11))
    assert grant.new_page_offsets().tolist() == [0, 5, 10]
    assert [request.is_allocated for request in requests] == [True, True, False]
    assert manager.page_table(handles[:2]).tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


def test_a_request_whose_prefix_was_taken_does_not_fit():
    manager = CacheManager(6, [FULL], max_model_len=64)
    first = manager.add_requests([Request("first", [0] * 16)])
    manager.allocate_step(first, int32(16))
    manager.commit_step(first, int32(16))
    manager.remove_requests(first)
    handles = manager.add_requests([Request("other", [1] * 12), Request("same", [0] * 16)])
    cached = manager.match_requests(handles)
    assert cached.tolist() == [0, 12]
    grant = manager.allocate_step(handles, int32(12, 4), num_cached_tokens=cached)
    assert grant.num_requests == 1
    manager.check_invariants()


def test_a_step_in_a_page_changes_no_row(manager):
    handles = manager.add_requests([Request("a", range(5))])
    manager.allocate_step(handles, int32(5))
    manager.commit_step(handles, int32(5))
    manager.append_tokens(handles, int32(7))
    grant = manager.allocate_step(handles, int32(1))
    assert (grant.num_requests, grant.changed_rows.tolist()) == (1, [])
    assert manager.slot_mapping(handles, int32(1)).tolist() == [9]


def test_rejected_guesses_are_taken_off(manager):
    requests = [Request(name, range(6)) for name in "ab"]
    handles = manager.add_requests(requests)
    manager.allocate_step(handles, int32(6, 6))
    manager.commit_step(handles, int32(6, 6))
    for request in requests:
        request.append([71, 72, 73])
    manager.allocate_step(handles, int32(3, 3))
    manager.commit_step(handles, int32(1, 2))  # what was accepted
    manager.truncate_requests(handles, int32(7, 8))
    assert [request.tokens.tolist()[6:] for request in requests] == [[71], [71, 72]]
    manager.append_tokens(handles, int32(9, 9))
    assert manager.slot_mapping(handles, int32(1, 1)).tolist() == [11, 24]
    third = Request("c", [*range(6), 71, 72, 0])
    assert manager.match(third) == 8
    manager.check_invariants()


def test_next_tokens_are_those_that_slots_are_for(manager):
    handles = manager.add_requests([Request("a", range(20, 30)), Request("b", [7, 8, 9])])
    manager.allocate_step(handles, int32(6, 2))
    assert manager.next_tokens(handles, int32(6, 2)).tolist() == [20, 21, 22, 23, 24, 25, 7, 8]
    manager.commit_step(handles, int32(6, 2))
    manager.append_tokens(handles, int32(77, 99))
    tokens = manager.next_tokens(handles[::-1].copy(), int32(2, 5))
    assert (tokens.dtype, tokens.tolist()) == (np.int32, [9, 99, 26, 27, 28, 29, 77])
    assert manager.next_tokens(handles, int32(0, 0)).tolist() == []


@pytest.mark.parametrize(
    ("groups", "num_tokens", "max_new_tokens", "num_pages"),
    [
        ([FULL], 17, 4, 5),
        ([BIG, FULL], 17, 4, 3 + 5),
        ([WINDOW], 60, 3, 3),  # 6 tokens of the window, less one, and 3: 8 tokens
        ([WINDOW], 5, 3, 2),
        ([CHUNK], 60, 1, 4),
        ([STATE, FULL], 17, 4, 1 + 5),
        ([CHECKPOINTS], 17, 4, 2),
    ],
)
def test_most_pages_of_a_request(groups, num_tokens, max_new_tokens, num_pages):
    manager = CacheManager(12, groups, max_model_len=64)
    assert manager.max_pages_per_request(num_tokens, max_new_tokens=max_new_tokens) == num_pages


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_tokens": 0}, "num_tokens must be >= 1, got 0"),
        ({"num_tokens": 65}, "num_tokens must be <= max_model_len 64, got 65"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1, got 0"),
        ({"num_lookahead_tokens": -1}, "num_lookahead_tokens must be >= 0, got -1"),
        ({"num_encoder_tokens": -1}, "num_encoder_tokens must be >= 0, got -1"),
    ],
)
def test_bad_arguments_of_most_pages_are_refused(manager, arguments, text):
    with pytest.raises(ValueError, match=re.escape(f"[CacheManager.max_pages_per_request] {text}")):
        manager.max_pages_per_request(**({"num_tokens": 12, "max_new_tokens": 4} | arguments))


def test_no_requests_are_a_step_too(manager):
    none = np.array([], np.int64)
    grant = manager.allocate_step(none, int32())
    assert (grant.num_requests, grant.new_page_offsets().tolist()) == (0, [0])
    manager.commit_step(none, int32())
    manager.free_requests(none)


CALLS = {
    "allocate_step": lambda m, h, n: m.allocate_step(h, n),
    "commit_step": lambda m, h, n: m.commit_step(h, n),
    "append_tokens": lambda m, h, n: m.append_tokens(h, n),
    "free_requests": lambda m, h, _: m.free_requests(h),
    "remove_requests": lambda m, h, _: m.remove_requests(h),
    "match_requests": lambda m, h, _: m.match_requests(h),
    "truncate_requests": lambda m, h, n: m.truncate_requests(h, n),
    "next_tokens": lambda m, h, n: m.next_tokens(h, n),
    "slot_mapping": lambda m, h, n: m.slot_mapping(h, n),
    "page_table": lambda m, h, _: m.page_table(h),
}


def started(manager):
    """Two requests with pages and room for more."""
    handles = manager.add_requests([Request("a", range(12)), Request("b", range(12))])
    manager.allocate_step(handles, int32(8, 8))
    manager.commit_step(handles, int32(2, 2))
    return handles


def state(manager, handles):
    return manager.page_table(handles).tolist(), manager.num_free_pages, manager.num_cached_pages


class Handle(int):
    """What a scheduler may keep in place of the number."""


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Shrinking(Index):
    """Takes the list away that it is in."""

    def __init__(self, value, items):
        super().__init__(value)
        self.items = items

    def __index__(self):
        self.items.clear()
        return self.value


def test_handles_may_be_anything_that_is_an_index(manager):
    handles = started(manager)
    assert manager.page_table([handles[0], Index(int(handles[1]))]).shape[0] == 2
    items = [int(handles[1])]
    items.insert(0, Shrinking(int(handles[0]), items))
    assert manager.page_table(items).shape[0] == 1
    assert items == []


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_handles_come_as_lists_too(call, kind):
    answers = []
    for is_list in (False, True):
        manager = CacheManager(12, [FULL], max_model_len=64)
        handles = started(manager)
        given = kind(map(Handle, handles)) if is_list else handles
        answer = call(manager, given, int32(2, 2))
        answer = answer.num_requests if hasattr(answer, "num_requests") else answer
        answers.append((np.asarray(answer, object).tolist(), manager.num_free_pages))
        manager.check_invariants()
    assert answers[0] == answers[1]


def read_only(array):
    array.flags.writeable = False
    return array


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    raw[:] = np.frombuffer(array.tobytes(), np.uint8)
    return raw.view(array.dtype)


LAYOUTS_OF_ARRAYS = {
    "plain": lambda array: array,
    "read_only": read_only,
    "subclass": lambda array: array.view(np.recarray),
    "buffer": memoryview,
}
COUNTS = {
    **LAYOUTS_OF_ARRAYS,
    "int64": lambda array: array.astype(np.int64),
    "uint8": lambda array: array.astype(np.uint8),
    "strided": lambda array: np.repeat(array, 2)[::2],
    "strided_int64": lambda array: np.repeat(array.astype(np.int64), 2)[::2],
    "backwards": lambda array: array[::-1].copy()[::-1],
    "list": lambda array: array.tolist(),
    "list_of_numpy_integers": list,
}


def answer_of(manager, call, handles, counts):
    answer = call(manager, handles, counts)
    answer = answer.num_requests if hasattr(answer, "num_requests") else answer
    manager.check_invariants()
    return np.asarray(answer, object).tolist(), manager.num_free_pages


@pytest.mark.parametrize("layout", LAYOUTS_OF_ARRAYS)
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_arrays_of_any_kind_say_the_same(call, counts, layout):
    managers = [CacheManager(12, [FULL], max_model_len=64) for _ in range(2)]
    plain, other = (started(manager) for manager in managers)
    expected = answer_of(managers[0], call, plain, int32(3, 2))
    given = LAYOUTS_OF_ARRAYS[layout](other), COUNTS[counts](int32(3, 2))
    assert answer_of(managers[1], call, *given) == expected


@pytest.mark.parametrize("spoil", [misaligned, lambda a: a.astype(a.dtype.newbyteorder())])
def test_arrays_in_a_strange_form_are_copied_or_refused(manager, spoil):
    handles = started(manager)
    before = state(manager, handles)
    for given in ((spoil(handles), int32(1, 1)), (handles, spoil(int32(1, 1)))):
        try:
            slots = manager.slot_mapping(*given)
        except (TypeError, ValueError):
            continue
        assert slots.tolist() == manager.slot_mapping(handles, int32(1, 1)).tolist()
    assert state(manager, handles) == before


def test_results_are_arrays_of_their_own(manager):
    handles = started(manager)
    slots, again = (manager.slot_mapping(handles, int32(1, 1)) for _ in range(2))
    assert slots.flags.owndata
    assert slots.flags.writeable
    slots[:] = -1
    assert (again >= 0).all()
    assert handles.dtype == np.int64


@pytest.mark.parametrize("bad", ["0", 1.0, None, 2**64], ids=repr)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_lists_of_other_things_are_refused(manager, call, bad):
    handles = started(manager)
    before = state(manager, handles)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        call(manager, [handles[0], bad], int32(1, 1))
    assert state(manager, handles) == before


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_handles_of_nobody_are_refused(manager, call):
    handles = started(manager)
    gone = manager.add_requests([Request("c", [1])])
    manager.remove_requests(gone)
    again = manager.add_requests([Request("d", [1])])  # in the place of the one that is gone
    before = state(manager, handles)
    for bad in (gone[0], -1, 2**62, 77):
        wrong = np.array([handles[0], bad], np.int64)
        with pytest.raises(ValueError, match=f"handle {bad} at position 1 is of no request"):
            call(manager, wrong, int32(1, 1))
    with pytest.raises(ValueError, match=r"request 'a' is there twice.*position 2"):
        call(manager, handles[[0, 1, 0]], int32(1, 1, 1))
    assert state(manager, handles) == before
    manager.remove_requests(again)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_handles_and_counts_of_other_types_are_refused(manager, call):
    handles = started(manager)
    for wrong in (handles.astype(np.float64), handles[:, None], "ab", None):
        with pytest.raises(TypeError):
            call(manager, wrong, int32(1, 1))


@pytest.mark.parametrize(
    ("call", "counts", "text"),
    [
        ("allocate_step", (1,), "num_new_tokens must have one entry a request, got 1 for 2"),
        ("commit_step", (1, 1, 1), "num_new_tokens must have one entry a request, got 3 for 2"),
        ("next_tokens", (1,), "num_tokens must have one entry a request, got 1 for 2"),
        ("next_tokens", (1, 11), "request 'b' has 10 tokens to compute, got 11"),
        ("next_tokens", (-1, 1), "request 'a' has 10 tokens to compute, got -1"),
        ("append_tokens", (), "tokens must have one entry a request, got 0 for 2"),
        ("allocate_step", (1, 0), "num_new_tokens must be >= 1, got 0"),
        ("allocate_step", (1, 2**31 - 1), "request 'b' would have 2147483649 tokens"),
        ("allocate_step", (1, 11), "request 'b' has 12 tokens, cannot compute 13"),
        ("commit_step", (1, -1), "num_new_tokens must be >= 0, got -1 for request 'b'"),
        ("truncate_requests", (12,), "num_tokens must have one entry a request, got 1 for 2"),
        ("truncate_requests", (2, 1), "request 'b' has 2 computed tokens, cannot keep 1"),
        ("truncate_requests", (2, 13), "request 'b' has 12 tokens, cannot keep 13"),
        ("truncate_requests", (2, -1), "cannot keep -1"),
        ("commit_step", (1, 7), "request 'b' has room for 8 tokens, got 9"),
        ("commit_step", (1, 2**31 - 1), "has room for 8 tokens, got 2147483649"),
    ],
)
def test_bad_counts_change_nothing(manager, call, counts, text):
    handles = started(manager)
    before = state(manager, handles)
    with pytest.raises(ValueError, match=re.escape(text)):
        CALLS[call](manager, handles, int32(*counts))
    assert state(manager, handles) == before
    manager.commit_step(handles, int32(6, 6))  # what there was room for
    manager.check_invariants()


def test_only_requests_get_handles_and_one_each(manager):
    request = Request("a", [1])
    with pytest.raises(TypeError, match=r"takes a list of pagedkv.Request, got int"):
        manager.add_requests([request, 5])
    handles = manager.add_requests([request])  # the failed call gave it none
    with pytest.raises(ValueError, match="request 'a' has a handle already"):
        manager.add_requests([Request("b", [1]), request])
    manager.remove_requests(handles)
    assert len(manager.add_requests([request])) == 1


def test_requests_of_another_manager_are_refused(manager):
    other = CacheManager(12, [FULL], max_model_len=64)
    request = Request("a", range(8))
    theirs = other.add_requests([request])
    other.allocate_step(theirs, int32(8))
    ours = manager.add_requests([request])
    take_any = [
        "append_tokens",
        "match_requests",
        "next_tokens",
        "slot_mapping",
        "truncate_requests",
    ]
    for name, call in CALLS.items():
        if name not in take_any:
            with pytest.raises(ValueError, match="request 'a' holds pages of another manager"):
                call(manager, ours, int32(1))
    assert other.page_table(theirs).tolist() == [[1, 2]]


def test_single_calls_and_steps_mix(manager):
    request = Request("a", range(12))
    assert manager.allocate(request, 8)
    handles = manager.add_requests([request])
    manager.commit_step(handles, int32(8))
    assert manager.allocate_step(handles, int32(4)).num_requests == 1
    manager.commit(request, 12)
    manager.free_requests(handles)
    assert not request.is_allocated
    manager.remove_requests(handles)
    manager.check_invariants()


def test_requests_live_as_long_as_their_handles(manager):
    class Named(Request):
        pass

    request = Named("a", range(8))
    alive = weakref.ref(request)
    handles = manager.add_requests([request])
    manager.allocate_step(handles, int32(8))
    del request
    gc.collect()
    assert alive() is not None
    manager.remove_requests(handles)
    gc.collect()
    assert alive() is None
    assert manager.num_free_pages == 11


def test_a_cycle_of_requests_and_manager_is_collected():
    class Owner(Request):
        pass

    manager = CacheManager(12, [FULL], max_model_len=64)
    request = Owner("a", range(8))
    request.manager = manager
    manager.allocate_step(manager.add_requests([request]), int32(8))
    alive = weakref.ref(request)
    del request, manager
    gc.collect()
    assert alive() is None


def test_shards_of_a_step():
    manager = CacheManager(20, [FULL], 64, data_parallel_size=2)
    for shard, count in enumerate((8, 4)):
        request = Request("first", range(count))
        assert manager.allocate(request, count, dp_shard=shard)
        manager.commit(request, count)
        manager.free(request)
    a, b = Request("a", range(12)), Request("b", range(6))
    handles = manager.add_requests([a, b])
    assert manager.match_shards(handles).tolist() == [[8, 4], [4, 4]]
    shards = np.array([1, 0], np.int32)
    cached = manager.match_requests(handles, dp_shards=shards)
    assert cached.tolist() == [4, 4]
    grant = manager.allocate_step(
        handles, np.array([8, 2], np.int32), num_cached_tokens=cached, dp_shards=shards
    )
    assert grant.num_requests == 2
    assert (manager.page_ids(a) >= 10).all()
    assert (manager.page_ids(b) < 10).all()
    for bad, error, message in [
        ([0, 2], IndexError, r"shard must be in \[0, 2\), got 2"),
        ([0], ValueError, "dp_shards must have one entry a request, got 1 for 2"),
    ]:
        for call in (
            lambda bad: manager.match_requests(handles, dp_shards=bad),
            lambda bad: manager.allocate_step(handles, [1, 1], dp_shards=bad),
        ):
            with pytest.raises(error, match=message):
                call(bad)
    manager.check_invariants()


def test_admission_above_the_watermark():
    manager = CacheManager(10, [FULL], 64)
    handles = manager.add_requests([Request("a", range(32)), Request("b", range(32))])
    counts = np.array([8, 8], np.int32)
    assert manager.allocate_step(handles, counts, watermark_pages=6).num_requests == 1
    assert manager.allocate_step(handles[1:], [4], full_sequence_must_fit=True).num_requests == 0
    assert manager.allocate_step(handles[1:], [4]).num_requests == 1
    with pytest.raises(ValueError, match="watermark_pages must be >= 0, got -1"):
        manager.allocate(Request("c", range(4)), 4, watermark_pages=-1)


def test_the_same_handles_are_looked_up_again_after_one_has_gone(manager):
    handles = manager.add_requests([Request("a", range(8)), Request("b", range(8))])
    assert manager.match_requests(handles).tolist() == [0, 0]
    manager.remove_requests(handles[:1])
    assert manager.match_requests(handles[:0]).tolist() == []
    with pytest.raises(ValueError, match="is of no request"):
        manager.match_requests(handles)
    with pytest.raises(ValueError, match="is of no request"):
        manager.match_requests(handles)
    assert manager.match_requests(handles[1:]).tolist() == [0]


def test_the_most_pages_of_a_request_end_with_the_model():
    manager = CacheManager(16, [FULL], max_model_len=64)
    most = manager.max_pages_per_request(64, max_new_tokens=1, num_lookahead_tokens=2**31 - 1)
    assert most == 16


def test_a_negative_watermark_is_refused_whoever_asks(manager):
    handles = manager.add_requests([Request("a", range(8))])
    manager.allocate_step(handles, int32(4))
    with pytest.raises(ValueError, match="watermark_pages must be >= 0, got -5"):
        manager.allocate_step(handles, int32(8), watermark_pages=-5)
