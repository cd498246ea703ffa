"""Calls that schedulers make with request objects of their own: their life, and every error."""

import gc
import re
import threading
import weakref
from types import SimpleNamespace

import pytest
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    CachePages,
    FullAttentionSpec,
    MambaSpec,
    Request,
    SlidingWindowSpec,
)

PAGE_SIZE = 4
FULL = CacheGroupSpec(FullAttentionSpec(PAGE_SIZE, 1, 8, "float32"))
WINDOW = CacheGroupSpec(SlidingWindowSpec(PAGE_SIZE, 1, 8, "float32", sliding_window=5))


def make_manager(num_pages=16, groups=(FULL,), max_model_len=64, **options):
    return CacheManager(num_pages, list(groups), max_model_len, **options)


@pytest.fixture
def manager():
    return make_manager()


def new(request_id, tokens, **attributes):
    tokens = list(tokens)
    return SimpleNamespace(
        request_id=request_id,
        num_tokens=len(tokens),
        num_computed_tokens=0,
        all_token_ids=tokens,
        **attributes,
    )


def append(request, *tokens):
    request.all_token_ids.extend(tokens)
    request.num_tokens += len(tokens)


def step(manager, request, num_new=None):
    """What a scheduler does in a step: look up, allocate, count as computed."""
    pages, num_cached = None, 0
    if not any(manager.get_page_ids(request.request_id)):
        pages, num_cached = manager.get_computed_pages(request)
    rest = request.num_tokens - request.num_computed_tokens - num_cached
    added = manager.allocate_slots(request, num_new or rest, num_cached, pages)
    assert added is not None
    request.num_computed_tokens += num_cached + (num_new or rest)
    manager.check_invariants()
    return added.get_page_ids()


def finish(manager, request):
    manager.free(request)
    manager.free_page_hashes(request)


def hit(manager, request, **options):
    pages, num_tokens = manager.get_computed_pages(request, **options)
    return pages.get_page_ids()[0], num_tokens


def state(manager):
    manager.check_invariants()
    return (
        manager.page_pool.free_pages().tolist(),
        manager.num_cached_pages,
        manager.num_requests,
        manager.num_evictions,
    )


class Tokens:
    """A sequence like EasyDeL's `ConstantList`, which counts what is read of it."""

    def __init__(self, tokens):
        self.tokens, self.reads = list(tokens), []

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, item):
        assert isinstance(item, slice), "read by slices"
        self.reads.append((item.start, item.stop))
        return self.tokens[item]


class Stream:
    """A request whose attributes are properties."""

    def __init__(self, request_id, tokens):
        self.id, self.tokens, self.computed = request_id, Tokens(tokens), 0

    request_id = property(lambda self: self.id)
    num_tokens = property(lambda self: len(self.tokens))
    all_token_ids = property(lambda self: self.tokens)

    @property
    def num_computed_tokens(self):
        return self.computed

    @num_computed_tokens.setter
    def num_computed_tokens(self, count):
        self.computed = count


@pytest.mark.parametrize("make", [new, Stream])
def test_life_of_a_request(manager, make):
    first = make("a", range(10))
    assert step(manager, first) == ([1, 2, 3],)
    second = make("b", range(10))
    assert hit(manager, second) == ([1, 2], 8)
    assert step(manager, second) == ([4],)
    assert manager.get_page_ids("b") == ([1, 2, 4],)
    assert manager.get_num_common_prefix_pages(first, 2) == [2]
    finish(manager, first)
    assert manager.get_page_ids("a") == ([],)
    finish(manager, second)
    assert (manager.num_free_pages, manager.num_requests) == (15, 0)
    assert manager.reset_prefix_cache()


def test_decode_makes_pages_as_they_are_needed(manager):
    request = new("a", range(7))
    assert step(manager, request) == ([1, 2],)
    added = []
    for token in range(7, 14):
        append(request, token)
        added.append(step(manager, request)[0])
    assert added == [[], [3], [], [], [], [4], []]
    assert hit(manager, new("b", range(14))) == ([1, 2, 3], 12)


def test_tokens_are_read_once_by_slices_and_when_a_page_is_full(manager):
    request = Stream("a", range(10))
    step(manager, request)
    assert request.tokens.reads == [(0, 8)]
    for token in range(10, 17):
        request.tokens.tokens.append(token)
        step(manager, request)
    assert request.tokens.reads == [(0, 8), (8, 12), (12, 16)]
    manager.free(request)
    request.computed = 0
    assert hit(manager, request) == ([1, 2, 3, 4], 16)
    assert len(request.tokens.reads) == 3, "after preemption nothing is new"


def test_nothing_is_read_with_caching_off():
    manager = make_manager(enable_caching=False)
    request = SimpleNamespace(request_id="a", num_computed_tokens=0)
    assert manager.get_computed_pages(request) == (manager.create_empty_page_list(), 0)
    assert manager.allocate_slots(request, 6).get_page_ids() == ([1, 2],)
    manager.cache_pages(request, 4)
    assert manager.get_num_common_prefix_pages(request, 1) == [0]
    with pytest.raises(ValueError, match="new_computed_pages must be empty: prefix caching is off"):
        manager.allocate_slots(request, 1, 4, CachePages(([SimpleNamespace(page_id=1)],)))
    manager.free(request)
    assert manager.num_free_pages == 15


def test_preempted_request_resumes_with_its_own_pages(manager):
    request = new("a", range(10))
    step(manager, request)
    append(request, 10, 11, 12)
    step(manager, request)
    manager.free(request)
    request.num_computed_tokens = 0
    assert hit(manager, request) == ([1, 2, 3], 12)
    assert step(manager, request) == ([5],), "page 4 may come of use again"
    assert manager.get_page_ids("a") == ([1, 2, 3, 5],)


def test_an_id_can_be_used_again_with_other_tokens(manager):
    first = new("a", range(9))
    step(manager, first)
    finish(manager, first)
    assert hit(manager, new("a", range(50, 59))) == ([], 0)
    forgotten = new("b", range(9))
    step(manager, forgotten)
    manager.free(forgotten)
    assert hit(manager, new("b", range(50, 59))) == ([], 0)
    assert hit(manager, new("b", range(13))) == ([1, 2], 8)


def test_an_id_can_be_used_again_with_another_salt(manager):
    red = new("a", range(9), cache_salt="red")
    step(manager, red)
    manager.free(red)
    assert hit(manager, new("a", range(9), cache_salt="blue")) == ([], 0)
    assert hit(manager, new("a", range(9))) == ([], 0)
    assert hit(manager, new("a", range(9), cache_salt="red")) == ([1, 2], 8)


def test_an_object_that_lost_tokens_is_read_anew_once_it_is_free(manager):
    request = new("a", range(9))
    step(manager, request)
    manager.free(request)
    request.all_token_ids, request.num_tokens = list(range(50, 55)), 5
    assert hit(manager, request) == ([], 0)
    request.all_token_ids, request.num_tokens = list(range(5)), 5
    request.request_id = "b"
    assert hit(manager, request) == ([1], 4)


def test_tokens_of_a_request_that_holds_pages_are_only_appended(manager):
    request = new("a", range(9))
    step(manager, request)
    before = state(manager)
    request.all_token_ids, request.num_tokens = list(range(5)), 5
    for call in (manager.get_computed_pages, lambda r: manager.allocate_slots(r, 8)):
        with pytest.raises(
            ValueError, match="request 'a' had 8 tokens, now has 4: tokens may only be appended"
        ):
            call(request)
        assert state(manager) == before


def test_another_object_may_go_on_for_a_running_request(manager):
    step(manager, new("a", range(6)))
    wrapped = new("a", range(10))
    wrapped.num_computed_tokens = 6
    assert step(manager, wrapped) == ([3],)
    assert hit(manager, new("b", range(10))) == ([1, 2], 8)


def test_salts_adapters_and_images_keep_requests_apart(manager):
    def image(name):
        return {"has_vision": True, "mm_features": [SimpleNamespace(modality="i", mm_hash=name)]}

    def lora(name):
        return {"lora_request": SimpleNamespace(lora_name=name, lora_path="/" + name)}

    kinds = [
        {},
        {"cache_salt": "red"},
        {"cache_salt": "red\0"},
        {"cache_salt": "red\0er"},
        lora("one"),
        lora("two"),
        image("cat"),
        image("dog"),
        {**image("cat"), "cache_salt": "red"},
    ]
    manager = make_manager(64)
    for i, kind in enumerate(kinds):
        request = new(f"r{i}", range(9), **kind)
        assert hit(manager, request) == ([], 0), kind
        step(manager, request)
    for i, kind in enumerate(kinds):
        assert hit(manager, new(f"s{i}", range(9), **kind)) == ([3 * i + 1, 3 * i + 2], 8)


def test_images_without_vision_do_not_count(manager):
    features = [SimpleNamespace(modality="i", mm_hash="cat")]
    step(manager, new("a", range(9), has_vision=False, mm_features=features))
    assert hit(manager, new("b", range(9), has_vision=True, mm_features=None)) == ([1, 2], 8)


def test_images_of_a_prompt_shorter_than_a_page_keep_its_output_apart(manager):
    requests = {}
    for name in ("cat", "dog"):
        features = [SimpleNamespace(modality="i", mm_hash=name)]
        requests[name] = new(name, range(3), has_vision=True, mm_features=features)
        step(manager, requests[name])
        append(requests[name], 3, 4, 5, 6, 7)
        step(manager, requests[name])
    dog = requests["dog"]
    manager.free(dog)
    dog.num_computed_tokens = 0
    assert hit(manager, dog) == ([3], 4)
    assert hit(manager, new("plain", range(9))) == ([], 0)


def test_prompt_logprobs_need_every_token_computed(manager):
    step(manager, new("a", range(9)))
    for params, expected in [
        (SimpleNamespace(prompt_logprobs=0), ([], 0)),
        (SimpleNamespace(prompt_logprobs=None), ([1, 2], 8)),
        (SimpleNamespace(), ([1, 2], 8)),
        (None, ([1, 2], 8)),
    ]:
        assert hit(manager, new("b", range(9), sampling_params=params)) == expected


def test_delayed_pages_are_found_once_they_are_cached(manager):
    request = new("a", range(10))
    assert manager.allocate_slots(request, 10, delay_cache_pages=True) is not None
    other = new("b", range(10))
    assert hit(manager, other) == ([], 0)
    manager.cache_pages(request, 6)
    assert hit(manager, other) == ([1], 4)
    manager.cache_pages(request, 10)
    manager.cache_pages(request, 10)
    assert hit(manager, other) == ([1, 2], 8)
    manager.check_invariants()


def test_makes_no_room_past_the_longest_request():
    manager = make_manager(max_model_len=10)
    request = new("a", range(8))
    assert manager.allocate_slots(request, 8, 0, None, 2**31 - 1).get_page_ids() == ([1, 2, 3],)
    request.num_computed_tokens = 8
    assert manager.allocate_slots(request, 2**31 - 1).get_page_ids() == ([],)
    assert manager.num_free_pages == 12
    manager.check_invariants()


@pytest.mark.parametrize("largest", [2**31 - 1])
def test_counts_near_int32_refuse_and_change_nothing(manager, largest):
    huge = new("a", range(9))
    huge.num_tokens = huge.num_computed_tokens = largest
    before = state(manager)
    with pytest.raises(ValueError, match=r"all_token_ids\[0:2147483644\] has 9 tokens"):
        manager.allocate_slots(huge, largest, largest, None, largest)
    huge.num_tokens = 9
    assert manager.allocate_slots(huge, largest, largest, None, largest) is None
    assert state(manager) == before
    assert manager.allocate_slots(new("b", range(4)), 4) is not None
    huge.request_id = "b"
    with pytest.raises(ValueError, match="has room for 4 tokens, got 2147483647"):
        manager.allocate_slots(huge, largest, largest, None, largest)
    for call in (
        lambda: manager.allocate_slots(new("c", range(4)), largest + 1),
        lambda: manager.get_computed_pages(new("c", range(4)), dp_shard_hint=2**31),
        lambda: manager.cache_pages(new("b", range(4)), 2**31),
    ):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            call()
    manager.check_invariants()


def test_freed_twice_does_nothing(manager):
    request = new("a", range(9))
    manager.free(request)
    step(manager, request)
    manager.free(request)
    before = state(manager)
    manager.free(request)
    finish(manager, request)
    manager.free_page_hashes(new("never seen", []))
    assert state(manager) == before


def test_hashes_freed_first_go_when_the_pages_do(manager):
    request = Stream("a", range(9))
    gone = weakref.ref(request)
    step(manager, request)
    manager.free_page_hashes(request)
    assert manager.get_page_ids("a") == ([1, 2, 3],)
    manager.free(request)
    del request
    assert gone() is None


def test_unknown_requests_have_empty_lists():
    manager = make_manager(groups=(FULL, WINDOW))
    assert manager.get_page_ids("nobody") == ([], [])
    assert manager.create_empty_page_list().get_page_ids() == ([], [])
    assert manager.get_num_common_prefix_pages(new("nobody", []), 1) == [0, 0]


def test_full_pool_returns_none_and_gives_only_skipped_pages_back():
    manager = make_manager(6, (WINDOW,))
    request = new("a", range(40))
    step(manager, request, 12)
    before = manager.get_page_ids("a")
    assert manager.allocate_slots(request, 28) is None
    assert (before, manager.get_page_ids("a")) == (([1, 2, 3],), ([0, 0, 3],))
    assert manager.allocate_slots(new("b", range(20)), 20) is None
    assert manager.get_page_ids("b") == ([],)
    manager.check_invariants()


def test_tokens_that_somebody_else_computes_get_room(manager):
    request = new("a", range(10))
    assert manager.allocate_slots(request, 2, 8).get_page_ids() == ([1, 2, 3],)
    assert hit(manager, new("b", range(10))) == ([1, 2], 8)


def pages_of(*groups):
    return CachePages(tuple([SimpleNamespace(page_id=page) for page in row] for row in groups))


@pytest.mark.parametrize(
    ("groups", "error", "text"),
    [
        (([1],), ValueError, "a list of pages for each of 2 groups, got 1"),
        (
            (
                [1, 2],
                [4, 5],
                [1],
            ),
            ValueError,
            "for each of 2 groups, got 3",
        ),
        (
            (
                [1, 2],
                [4],
            ),
            ValueError,
            "group 1 has 1 pages",
        ),
        (
            (
                [1, 2],
                [5, 4],
            ),
            ValueError,
            "page 5 of group 1 has other content",
        ),
        (
            (
                [4, 5],
                [1, 2],
            ),
            ValueError,
            "page 4 of group 0 has other content",
        ),
        (
            (
                [1, 0],
                [4, 5],
            ),
            ValueError,
            "page 0 of group 0",
        ),
        (
            (
                [1, -1],
                [4, 5],
            ),
            ValueError,
            "page -1 of group 0",
        ),
        (
            (
                [1, 16],
                [4, 5],
            ),
            ValueError,
            "page 16 of group 0",
        ),
        (
            (
                [1, 2**31 - 1],
                [4, 5],
            ),
            ValueError,
            "page 2147483647 of group 0",
        ),
        (
            (
                [1, 2**31],
                [4, 5],
            ),
            ValueError,
            "page ids must fit in int32, got 2147483648",
        ),
        (
            (
                [1, "2"],
                [4, 5],
            ),
            TypeError,
            "page ids must be integers, got str",
        ),
    ],
)
def test_refuses_tampered_pages_and_changes_nothing(groups, error, text):
    manager = make_manager(groups=(FULL, FULL))
    step(manager, new("a", range(12)))
    before = state(manager)
    with pytest.raises(error, match=re.escape(text)):
        manager.allocate_slots(new("b", range(12)), 4, 8, pages_of(*groups))
    assert (state(manager), manager.get_page_ids("b")) == (before, ([], []))


def test_refuses_pages_that_are_none(manager):
    step(manager, new("a", range(12)))
    before = state(manager)
    with pytest.raises(AttributeError, match="'int' object has no attribute 'page_id'"):
        manager.allocate_slots(new("b", range(12)), 4, 8, CachePages(([1, 2],)))
    assert state(manager) == before


def test_refuses_pages_of_another_manager_and_of_another_request(manager):
    other = make_manager()
    step(other, new("a", range(12)))
    theirs, count = other.get_computed_pages(new("b", range(12)))
    before = state(manager)
    with pytest.raises(ValueError, match="page 1 of group 0 has other content"):
        manager.allocate_slots(new("b", range(12)), 4, count, theirs)
    with pytest.raises(ValueError, match="page 1 of group 0 has other content"):
        other.allocate_slots(new("c", range(50, 62)), 4, count, theirs)
    assert state(manager) == before


def test_refuses_pages_that_were_evicted_since(manager):
    first = new("a", range(12))
    step(manager, first)
    second = new("b", range(12))
    pages, count = manager.get_computed_pages(second)
    finish(manager, first)
    step(manager, new("storm", range(100, 160)))
    before = state(manager)
    with pytest.raises(ValueError, match=r"not a cached prefix of 8 tokens of request 'b': page 1"):
        manager.allocate_slots(second, 4, count, pages)
    assert state(manager) == before


def test_refuses_cached_pages_for_a_request_that_holds_pages(manager):
    request = new("a", range(12))
    step(manager, request)
    pages, count = manager.get_computed_pages(request)
    with pytest.raises(ValueError, match="holds pages already: new_computed_pages must be empty"):
        manager.allocate_slots(request, 1, count, pages)
    manager.check_invariants()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m, r: m.allocate_slots(r, 0), ValueError, "num_new_tokens must be greater than 0"),
        (lambda m, r: m.allocate_slots(r, -1), ValueError, "greater than 0, got -1"),
        (lambda m, r: m.allocate_slots(r, 1, -1), ValueError, "num_new_computed_tokens must be >="),
        (lambda m, r: m.allocate_slots(r, 1, 0, None, -1), ValueError, "num_lookahead_tokens must"),
        (lambda m, r: m.allocate_slots(r, 1.5), TypeError, "incompatible function arguments"),
        (lambda m, r: m.allocate_slots(r, 1, 0, ([],)), TypeError, "incompatible function"),
        (lambda m, r: m.cache_pages(r, 9), ValueError, "[CacheManager.cache_pages] request 'a'"),
        (lambda m, r: m.cache_pages(r, -1), ValueError, "num_computed_tokens must be >= 0, got -1"),
        (lambda m, r: m.cache_pages(new("x", []), 1), ValueError, "request 'x' holds no pages"),
        (
            lambda m, r: m.get_num_common_prefix_pages(r, 0),
            ValueError,
            "num_scheduled_requests must be >= 1, got 0",
        ),
        (
            lambda m, r: m.get_num_common_prefix_pages(
                new("a", [], status=SimpleNamespace(name="WAITING")), 1
            ),
            ValueError,
            "request 'a' is WAITING, it must be RUNNING",
        ),
        (lambda m, r: m.get_page_ids(7), TypeError, "incompatible function arguments"),
        (lambda m, r: m.free(object()), AttributeError, "no attribute 'request_id'"),
        (lambda m, r: m.free(new(7, [])), TypeError, "request_id must be a text, got int"),
        (lambda m, r: m.free(new("\ud800", [])), UnicodeEncodeError, "surrogates not allowed"),
    ],
)
def test_refuses_and_changes_nothing(manager, call, error, text):
    request = new("a", range(6))
    step(manager, request)
    before = state(manager)
    with pytest.raises(error, match=re.escape(text)):
        call(manager, request)
    assert (state(manager), manager.get_page_ids("a")) == (before, ([1, 2],))


@pytest.mark.parametrize("name", ["num_tokens", "num_computed_tokens"])
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("8", TypeError, "must be an integer, got str"),
        (None, TypeError, "must be an integer, got NoneType"),
        (8.0, TypeError, "must be an integer, got float"),
        (-1, ValueError, "must be >= 0 and fit in int32, got -1"),
        (2**31, ValueError, "must be >= 0 and fit in int32, got 2147483648"),
        (-(2**70), ValueError, "must be >= 0 and fit in int32, got -1180591620717411303424"),
    ],
)
def test_refuses_counts_that_are_none(manager, name, value, error, text):
    request = new("a", range(8))
    setattr(request, name, value)
    before = state(manager)
    with pytest.raises(error, match=re.escape(f"[CacheManager.allocate_slots] {name} {text}")):
        manager.allocate_slots(request, 8)
    assert state(manager) == before


@pytest.mark.parametrize(
    ("tokens", "error", "text"),
    [
        (range(4), ValueError, "all_token_ids[0:8] has 4 tokens, num_tokens says 8"),
        (["a"] * 8, TypeError, "all_token_ids must be integers, got str at position 0"),
        ([2**31] * 8, ValueError, "all_token_ids must fit in int32, got 2147483648"),
        ("12345678", TypeError, "all_token_ids must be a one-dimensional array or a sequence"),
        (None, TypeError, "'NoneType' object is not subscriptable"),
    ],
)
def test_refuses_tokens_that_are_none(manager, tokens, error, text):
    request = new("a", range(8))
    request.all_token_ids = tokens
    before = state(manager)
    for call in (manager.get_computed_pages, lambda r: manager.allocate_slots(r, 8)):
        with pytest.raises(error, match=re.escape(text)):
            call(request)
        assert state(manager) == before


class Broken:
    """Says why, wherever it is looked into."""

    def __bool__(self):
        raise ZeroDivisionError("broken")

    def __getattr__(self, name):
        raise ZeroDivisionError("broken")


def raising(name):
    """A request of whose attributes one raises what is no AttributeError."""

    def fail(self):
        raise ZeroDivisionError("broken")

    kind = type("Request", (SimpleNamespace,), {name: property(fail)})
    attributes = vars(new("a", range(8))) | {"has_vision": True, "mm_features": [object()]}
    return kind(**{key: value for key, value in attributes.items() if key != name})


@pytest.mark.parametrize(
    "name",
    [
        "request_id",
        "num_tokens",
        "all_token_ids",
        "sampling_params",
        "cache_salt",
        "lora_request",
        "has_vision",
        "mm_features",
    ],
)
def test_an_attribute_that_raises_is_not_taken_for_missing(manager, name):
    before = state(manager)
    with pytest.raises(ZeroDivisionError, match="broken"):
        manager.get_computed_pages(raising(name))
    assert state(manager) == before
    assert manager.allocate_slots(new("a", range(8)), 8) is not None


@pytest.mark.parametrize("name", ["sampling_params", "has_vision", "lora_request"])
def test_a_value_that_raises_is_not_taken_for_missing(manager, name):
    with pytest.raises(ZeroDivisionError, match="broken"):
        manager.get_computed_pages(new("a", range(8), **{name: Broken()}))
    with pytest.raises(ZeroDivisionError, match="broken"):
        manager.get_num_common_prefix_pages(new("a", range(8), status=Broken()), 1)
    manager.check_invariants()


@pytest.mark.parametrize("name", ["num_tokens", "all_token_ids", "cache_salt"])
def test_reading_a_request_may_not_change_the_manager(manager, name):
    held = new("held", range(6))
    step(manager, held)
    refused = []

    def meddle(self):
        for call in (manager.free, manager.free_page_hashes, manager.get_computed_pages):
            try:
                call(held)
            except RuntimeError as error:
                refused.append(str(error))
        assert manager.get_page_ids("held") == ([1, 2],)
        manager.check_invariants()
        return {"num_tokens": 8, "all_token_ids": list(range(8)), "cache_salt": None}[name]

    kind = type("Request", (SimpleNamespace,), {name: property(meddle)})
    attributes = {key: value for key, value in vars(new("a", range(8))).items() if key != name}
    assert manager.allocate_slots(kind(**attributes), 8) is not None
    assert "[CacheManager.free] the manager is in use by another thread" in refused
    assert manager.get_page_ids("held") == ([1, 2],)
    manager.check_invariants()


def test_tokens_that_change_their_list_while_they_are_read(manager):
    class Shrinking:
        def __init__(self, tokens):
            self.tokens = tokens

        def __index__(self):
            self.tokens.clear()
            return 1

    class Slices:
        def __getitem__(self, item):
            tokens = []
            tokens += [Shrinking(tokens), *range(1, item.stop)]
            return tokens

    request = new("a", range(8))
    request.all_token_ids = Slices()
    with pytest.raises(ValueError, match=r"all_token_ids\[0:8\] has 1 tokens, num_tokens says 8"):
        manager.get_computed_pages(request)
    tokens = []
    tokens += [Shrinking(tokens), *[object() for _ in range(1000)]]
    assert Request("b", tokens).num_tokens == 1


def test_long_prompts_are_hashed_without_the_lock():
    num_tokens = 4_000_000
    manager = make_manager(max_model_len=num_tokens)
    other = new("other", range(8))
    step(manager, other)
    prompt = new("long", range(num_tokens))
    started, refused, seen = threading.Event(), set(), 0

    def look_up():
        started.set()
        assert hit(manager, prompt) == ([], 0)

    prompt.all_token_ids[:8] = range(100, 108)
    thread = threading.Thread(target=look_up)
    thread.start()
    started.wait()
    while thread.is_alive():
        try:
            manager.free(other)
        except RuntimeError as error:
            refused.add(str(error))
        assert manager.num_free_pages in (13, 15)
        seen += 1
    thread.join()
    assert refused == {"[CacheManager.free] the manager is in use by another thread"}
    assert seen > 1
    manager.check_invariants()


def test_cycle_through_a_request_is_collected():
    request = Stream("a", range(8))
    manager = make_manager()
    request.manager = manager
    step(manager, request)
    gone = weakref.ref(request)
    del manager, request
    gc.collect()
    assert gone() is None


def test_cycle_through_given_pages_is_collected():
    page = Stream("a", [])
    page.pages = CachePages(([page],))
    gone = weakref.ref(page)
    del page
    gc.collect()
    assert gone() is None


def test_requests_that_call_back_when_they_die():
    class Last(SimpleNamespace):
        def __del__(self):
            seen.append(self.manager.get_page_ids("a"))

    seen = []
    manager = make_manager()
    request = Last(**vars(new("a", range(8))), manager=manager)
    step(manager, request)
    del request
    manager.free(new("a", []))
    manager.free_page_hashes(new("a", []))
    assert seen == [([],)]
    held = Last(**vars(new("b", range(8))), manager=manager)
    step(manager, held)
    del manager, held
    gc.collect()
    assert len(seen) == 2


def test_pages_outlive_their_manager():
    manager = make_manager()
    step(manager, new("a", range(9)))
    pages, _ = manager.get_computed_pages(new("b", range(9)))
    pool = manager.page_pool
    del manager
    gc.collect()
    assert [page.ref_cnt for page in pages.pages[0]] == [0, 0]
    assert pool.num_free_pages == 15


def test_takes_no_requests_of_its_own(manager):
    request = Request("a", range(8))
    for call in (
        manager.get_computed_pages,
        lambda r: manager.allocate_slots(r, 8),
        lambda r: manager.cache_pages(r, 8),
        manager.free_page_hashes,
        lambda r: manager.get_num_common_prefix_pages(r, 1),
    ):
        with pytest.raises(TypeError, match=r"takes a scheduler's own request objects.*use match"):
            call(request)


def test_native_and_scheduler_requests_share_pages(manager):
    step(manager, new("a", range(10)))
    native = Request("a", range(10))
    assert manager.match(native) == 8
    assert manager.allocate(native, 2, num_cached_tokens=8)
    manager.commit(native, 10)
    assert manager.page_ids(native).tolist() == [1, 2, 4]
    assert (manager.get_page_ids("a"), manager.num_requests) == (([1, 2, 3],), 2)
    manager.free(new("a", []))
    assert manager.page_ids(native).tolist() == [1, 2, 4]
    assert not manager.reset_prefix_cache()
    manager.free(native)
    assert manager.reset_prefix_cache()
    manager.check_invariants()


def test_free_tells_native_requests_by_their_class(manager):
    native = Request("a", range(8))
    assert manager.allocate(native, 8)
    manager.free(native)
    with pytest.raises(ValueError, match="holds no pages"):
        manager.free(native)


def test_shards_of_the_pool_are_those_that_a_call_names():
    manager = make_manager(12)
    dp = {"data_parallel_size": 3}
    first = new("a", range(9))
    added = manager.allocate_slots(first, 9, dp_shard_hint=1, **dp)
    assert (added.get_page_ids(), manager.data_parallel_size) == (([4, 5, 6],), 3)
    second = new("b", range(9))
    assert hit(manager, second, dp_shard_hint=0, **dp) == ([], 0)
    assert hit(manager, second, dp_shard_hint=1, **dp) == ([4, 5], 8)
    assert hit(manager, second, dp_shard_hint=-2, **dp) == ([4, 5], 8)
    assert manager.allocate_slots(second, 9, dp_shard_hint=4, **dp) is None
    append(first, *range(9, 16))
    first.num_computed_tokens = 9
    assert manager.allocate_slots(first, 7, dp_shard_hint=2, **dp).get_page_ids() == ([7],)
    assert hit(manager, second, dp_shard_hint=0, data_parallel_size=5) == ([4, 5], 8)
    manager.check_invariants()


def test_a_request_leaves_its_shard_where_the_call_names_other_shards():
    manager = make_manager(12, data_parallel_size=3)
    request = new("a", range(16))
    manager.allocate_slots(request, 4, dp_shard_hint=2, data_parallel_size=3)
    request.num_computed_tokens = 4
    assert manager.allocate_slots(request, 4, data_parallel_size=5).get_page_ids() == ([1],)
    request.num_computed_tokens = 8
    assert manager.allocate_slots(request, 4).get_page_ids() == ([2],)


@pytest.mark.parametrize("shard", [-1, 3, -2])
def test_native_calls_refuse_foreign_shards(shard):
    manager = make_manager(12, data_parallel_size=3)
    request = Request("a", range(8))
    text = re.escape(f"shard must be in [0, 3), got {shard}")
    with pytest.raises(IndexError, match=text):
        manager.match(request, dp_shard=shard)
    with pytest.raises(IndexError, match=text):
        manager.allocate(request, 8, dp_shard=shard)
    assert not request.is_allocated


def test_pages_add_up_and_compare(manager):
    first = manager.allocate_slots(new("a", range(8)), 8)
    second = manager.allocate_slots(new("b", range(50, 54)), 4)
    both = first + second
    assert both.get_page_ids() == ([1, 2, 3],)
    assert both == first + second
    assert first != second
    assert first != "pages"
    assert both.new_empty().get_page_ids() == ([],)
    assert repr(both) == "CachePages(([1, 2, 3],))"
    assert first.get_unhashed_page_ids() == []
    assert (pages_of([7]) + first).get_page_ids() == ([7, 1, 2],)
    with pytest.raises(ValueError, match="only for one group of layers, these are pages of 2"):
        pages_of([1], [2]).get_unhashed_page_ids()
    with pytest.raises(TypeError, match="incompatible function arguments"):
        CachePages([1])


CHECKPOINTS = CacheGroupSpec(MambaSpec(4, [(4, 4)], "float32", cache_mode="align"))


@pytest.mark.parametrize("delay", [False, True])
def test_a_checkpoint_inside_a_step_is_none(delay):
    """Steps end after 3 and 5 tokens: no state after 4 tokens is ever in a page."""
    manager = make_manager(groups=[CHECKPOINTS])
    request = new("a", range(20))
    for num_new in (3, 2):
        manager.allocate_slots(request, num_new, delay_cache_pages=delay)
        request.num_computed_tokens += num_new
    manager.cache_pages(request, 5)
    assert hit(manager, new("b", range(8))) == ([], 0)
    manager.allocate_slots(request, 3)  # this one ends after 8 tokens
    assert hit(manager, new("b", range(9)))[1] == 8
    manager.check_invariants()


def test_rows_of_schedulers_only_grow():
    manager = make_manager(deduplicate=True)
    a, b = new("a", range(8)), new("b", range(8))
    first = manager.allocate_slots(b, 3).get_page_ids()[0]
    b.num_computed_tokens = 3
    manager.allocate_slots(a, 6)
    second = manager.allocate_slots(b, 3).get_page_ids()[0]
    assert manager.get_page_ids("b")[0] == [*first, *second]
    manager.check_invariants()
