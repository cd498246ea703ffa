"""Where `pagedkv.compat.easydel` differs from EasyDeL 0.3.0 on purpose, side by side.

docs/schedulers.md lists these tests.
"""

from types import SimpleNamespace

import pagedkv.compat.easydel as ours_module
import pytest
from lockstep_config import Config, Group

FULL = Group("full", 4)


class Sides:
    """A manager of each side, given the same groups."""

    def __init__(self, easydel):
        self.easydel = easydel

    def managers(self, *groups, num_pages=16, max_model_len=64, **options):
        config = Config(groups, num_pages, max_model_len, **options)
        return (
            config.manager(self.easydel.manager.CacheManager, self.easydel.interface),
            config.manager(ours_module.CacheManager, ours_module),
        )

    def request(self, request_id, tokens, images=(), **params):
        features = [SimpleNamespace(modality="image", mm_hash=image) for image in images]
        sampling = self.easydel.request.SamplingParams(**params)
        request = self.easydel.request.EngineRequest(
            request_id, list(tokens), sampling, None, mm_features=features
        )
        request.status = self.easydel.request.EngineRequestStatus.RUNNING
        return request


@pytest.fixture
def sides(easydel):
    return Sides(easydel)


def compute(manager, request, num_tokens=None, **arguments):
    """Looks the request up and computes it to the end."""
    hit, num_cached = manager.get_computed_pages(request)
    num_new = (num_tokens or request.num_tokens) - num_cached
    new_pages = manager.allocate_slots(request, num_new, num_cached, hit, **arguments)
    assert new_pages is not None
    request.num_computed_tokens = num_cached + num_new


def finish(manager, request):
    manager.free(request)
    manager.free_page_hashes(request)
    request.num_computed_tokens = 0


def num_hit_tokens(manager, request):
    return manager.get_computed_pages(request)[1]


def free_ids(manager):
    return [page.page_id for page in manager.page_pool.free_page_queue.get_all_free_pages()]


# --- a data-parallel shard that is full -----------------------------------------------------------

SHARD = {"dp_shard_hint": 0, "data_parallel_size": 2}


def refuse_then_retry_with_hit(sides, manager):
    late = sides.request("late", range(16))
    assert manager.allocate_slots(late, 16, **SHARD) is None
    early = sides.request("early", range(4))
    compute(manager, early, **SHARD)
    hit, num_cached = manager.get_computed_pages(late, **SHARD)
    assert num_cached == 4
    return manager.allocate_slots(late, 4, num_cached, hit, **SHARD)


def test_refused_request_may_hit_later(sides):
    theirs, ours = sides.managers(FULL, num_pages=8)
    with pytest.raises(AssertionError):
        refuse_then_retry_with_hit(sides, theirs)
    assert refuse_then_retry_with_hit(sides, ours).get_page_ids() == ([2],)


def test_refused_request_holds_no_pages(sides):
    held = []
    for manager in sides.managers(FULL, Group("sliding", 4, 8), num_pages=8):
        assert manager.allocate_slots(sides.request("a", range(8)), 8, **SHARD) is None
        held.append(manager.get_page_ids("a"))
    assert held == [([1, 2], []), ([], [])]


def test_refused_hit_stays_as_cold_as_it_was(sides):
    queues = []
    for manager in sides.managers(FULL, num_pages=8):
        first = sides.request("a", range(8))
        compute(manager, first)
        finish(manager, first)
        late = sides.request("b", range(20))
        hit, num_cached = manager.get_computed_pages(late, **SHARD)
        assert manager.allocate_slots(late, 12, num_cached, hit, **SHARD) is None
        queues.append(free_ids(manager))
    assert queues == [[3, 4, 5, 6, 7, 1, 2], [3, 4, 5, 6, 7, 2, 1]]


# --- what pages are found by ----------------------------------------------------------------------


def slide_over_uncached(sides, manager):
    request = sides.request("a", range(9))
    assert manager.allocate_slots(request, 8, delay_cache_pages=True) is not None
    request.num_computed_tokens = 8
    assert manager.allocate_slots(request, 1, delay_cache_pages=True) is not None
    manager.cache_pages(request, 8)
    return manager.page_pool


def test_null_page_is_never_cached(sides):
    theirs, ours = sides.managers(Group("sliding", 4, 4))
    pool = slide_over_uncached(sides, theirs)
    assert pool.null_page.page_hash is not None
    assert len(pool.cached_page_hash_to_page) == 2
    pool = slide_over_uncached(sides, ours)
    assert pool.null_page.page_hash is None
    assert len(pool.cached_page_hash_to_page) == 1


def test_null_page_is_never_cached_twice(sides):
    theirs, ours = sides.managers(Group("sliding", 4, 4))
    slide_over_uncached(sides, theirs)
    theirs.free(sides.request("a", []))
    with pytest.raises(RuntimeError):
        slide_over_uncached(sides, theirs)
    slide_over_uncached(sides, ours)
    ours.free(sides.request("a", []))
    slide_over_uncached(sides, ours)


@pytest.mark.parametrize("group", [Group("sliding", 4, 2), Group("chunked", 4, 8)])
def test_page_is_named_by_all_before_it(sides, group):
    hits = []
    for manager in sides.managers(group):
        compute(manager, sides.request("prefix", range(8)))
        request = sides.request("a", range(9))
        compute(manager, request)
        for token in (9, 10, 11):
            request.append_output_token_ids(token)
            assert manager.allocate_slots(request, 1) is not None
            request.num_computed_tokens += 1
        hits.append(num_hit_tokens(manager, sides.request("b", [8, 9, 10, 11, 12])))
    assert hits == [4, 0]


def resume_after_guesses(sides, manager):
    request = sides.request("a", range(4))
    compute(manager, request)
    assert manager.allocate_slots(request, 6) is not None  # one token and five guesses, all right
    request.append_output_token_ids(list(range(4, 10)))
    compute(manager, sides.request("b", range(10)))
    manager.free(request)
    return num_hit_tokens(manager, request)


def test_resumed_request_hits_all_it_can(sides):
    theirs, ours = sides.managers(FULL)
    assert resume_after_guesses(sides, theirs) == 4
    assert resume_after_guesses(sides, ours) == 8


def test_resumed_request_with_window_is_looked_up(sides):
    theirs, ours = sides.managers(Group("sliding", 4, 8))
    with pytest.raises(IndexError):
        resume_after_guesses(sides, theirs)
    assert resume_after_guesses(sides, ours) == 8


def test_images_name_pages_of_requests_that_want_prompt_logprobs(sides):
    hits = []
    for manager in sides.managers(FULL):
        compute(manager, sides.request("a", range(9), images=["cat"], prompt_logprobs=1))
        hits.append(num_hit_tokens(manager, sides.request("b", range(9))))
    assert hits == [8, 0]


def test_images_name_pages_that_short_prompts_begin(sides):
    hits = []
    for manager in sides.managers(FULL):
        request = sides.request("a", range(3), images=["cat"])
        compute(manager, request)
        request.append_output_token_ids(3)
        assert manager.allocate_slots(request, 1) is not None
        hits.append(num_hit_tokens(manager, sides.request("b", range(9))))
    assert hits == [4, 0]


@pytest.mark.parametrize(
    "second", [{"tokens": range(20, 29)}, {"tokens": range(9), "images": ["dog"]}]
)
def test_name_used_again_is_another_request(sides, second):
    hits = []
    for manager in sides.managers(FULL):
        first = sides.request("a", range(9), images=["cat"])
        compute(manager, first)
        manager.free(first)  # and no free_page_hashes
        hits.append(num_hit_tokens(manager, sides.request("a", **second)))
    assert hits == [8, 0]


def test_pages_of_different_sizes_have_names_of_their_own(sides):
    rows = []
    for manager in sides.managers(FULL, Group("sliding", 8, 8)):
        compute(manager, sides.request("a", [0, 1, 2, 3, 4, 5, 6, 7, 8]))
        compute(manager, sides.request("b", [0, 1, 2, 3, 14, 15, 16, 17, 18]))
        hit, _ = manager.get_computed_pages(sides.request("c", [0, 1, 2, 3, 14, 15, 16, 17, 18]))
        rows.append((hit.get_page_ids()[1][0], manager.get_page_ids("a")[1][0]))
    (theirs, page_of_a), (ours, _) = rows
    assert theirs == page_of_a  # which has tokens 4 to 7 of another request
    assert ours != page_of_a


# --- what a group needs of a prefix ---------------------------------------------------------------


def test_window_of_one_token_needs_nothing(sides):
    theirs, ours = sides.managers(Group("sliding", 4, 1))
    request = sides.request("a", range(9))
    assert num_hit_tokens(theirs, request) == 0
    assert num_hit_tokens(ours, request) == 8


def test_chunk_that_begins_within_a_page_needs_that_page(sides):
    theirs, ours = sides.managers(Group("chunked", 4, 6))
    request = sides.request("a", range(11))
    assert num_hit_tokens(theirs, request) == 4  # of nothing: token 4 sees tokens 0 to 3
    assert num_hit_tokens(ours, request) == 0


def test_state_is_one_page_for_any_length(sides):
    theirs, ours = sides.managers(Group("mamba", 8))
    request = sides.request("a", range(9))
    with pytest.raises(AssertionError, match="1 page"):
        theirs.allocate_slots(request, 9)
    assert ours.allocate_slots(request, 9).get_page_ids() == ([1],)


def test_state_is_not_cached(sides):
    keys = []
    for manager in sides.managers(Group("mamba", 8), max_model_len=8):
        compute(manager, sides.request("a", range(8)))
        keys.append(len(manager.page_pool.cached_page_hash_to_page))
    assert keys == [1, 0]  # and nobody ever finds it


# --- what callers may do --------------------------------------------------------------------------


def cache_fewer_then_more(sides, manager):
    request = sides.request("a", range(9))
    compute(manager, request)
    manager.cache_pages(request, 4)
    manager.cache_pages(request, 8)
    return len(manager.page_pool.cached_page_hash_to_page)


def test_fewer_tokens_may_be_cached_again(sides):
    theirs, ours = sides.managers(FULL)
    with pytest.raises(RuntimeError):
        cache_fewer_then_more(sides, theirs)
    assert cache_fewer_then_more(sides, ours) == 2


SLIDING, CHUNKED = Group("sliding", 4, 8), Group("chunked", 4, 8)


@pytest.mark.parametrize(
    "groups",
    [
        (FULL, FULL),
        (SLIDING, SLIDING),
        (FULL, SLIDING, CHUNKED),
        (FULL, SLIDING, FULL),
        (FULL, SLIDING, Group("sliding", 4, 16)),
        (FULL, Group("sliding", 6, 12)),
    ],
    ids=lambda groups: "+".join(f"{g.kind}{g.page_size}" for g in groups),
)
def test_any_mix_of_groups(sides, easydel, groups):
    config = Config(groups, 16, 64)
    with pytest.raises(ValueError, match="assumes"):
        config.manager(easydel.manager.CacheManager, easydel.interface)
    ours = config.manager(ours_module.CacheManager, ours_module)
    compute(ours, sides.request("a", range(13)))
    assert num_hit_tokens(ours, sides.request("b", range(13))) == 12


def test_eagle_with_chunks(sides):
    theirs, ours = sides.managers(CHUNKED, use_eagle=True)
    compute(ours, sides.request("a", range(7)))
    with pytest.raises(AssertionError, match="eagle"):
        num_hit_tokens(theirs, sides.request("b", range(7)))
    assert num_hit_tokens(ours, sides.request("b", range(7))) == 0


def test_hash_seed_of_python_may_be_random(sides, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    config = Config((FULL,), 16, 64)
    with pytest.raises(ValueError, match="invalid literal"):
        config.manager(sides.easydel.manager.CacheManager, sides.easydel.interface)
    config.manager(ours_module.CacheManager, ours_module)


def test_no_groups_are_refused(easydel):
    config = Config((), 16, 64)
    config.manager(easydel.manager.CacheManager, easydel.interface)
    with pytest.raises(ValueError, match="kv_cache_groups must not be empty"):
        config.manager(ours_module.CacheManager, ours_module)


def test_wrong_calls_are_value_errors(sides):
    theirs, ours = sides.managers(FULL)
    request = sides.request("a", range(8))
    request.status = sides.easydel.request.EngineRequestStatus.WAITING
    with pytest.raises(AssertionError):
        theirs.get_num_common_prefix_pages(request, 1)
    with pytest.raises(ValueError, match="must be RUNNING"):
        ours.get_num_common_prefix_pages(request, 1)


# --- what can be seen -----------------------------------------------------------------------------


def test_pool_of_a_manager_is_read_only(sides):
    theirs, ours = sides.managers(FULL)
    assert [page.page_id for page in theirs.page_pool.get_new_pages(1)] == [1]
    with pytest.raises(TypeError, match="belongs to a CacheManager"):
        ours.page_pool.get_new_pages(1)


def test_coordinator_does_not_allocate(sides):
    theirs, ours = sides.managers(FULL)
    assert len(theirs.coordinator.allocate_new_pages("a", 8)[0]) == 2
    assert not hasattr(ours.coordinator, "allocate_new_pages")
    assert not hasattr(ours.coordinator.single_type_managers[0], "allocate_new_pages")


def test_hashes_of_pages_are_digests_without_tokens(sides):
    found = []
    for manager in sides.managers(FULL):
        compute(manager, sides.request("a", range(4)))
        found.append(manager.page_pool.pages[1].page_hash.page_hash)
    theirs, ours = found
    assert (type(theirs.hash_value), theirs.token_ids) == (int, (0, 1, 2, 3))
    assert (type(ours.hash_value), ours.token_ids) == (bytes, ())
