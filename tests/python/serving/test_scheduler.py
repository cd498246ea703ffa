"""The scheduler alone: the model is a function of all tokens, so that answers can be checked."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    Request,
    SlidingWindowSpec,
)
from pagedkv.serving.running import Step
from pagedkv.serving.scheduler import Scheduler

MAX_MODEL_LEN = 64
EOS = 4
LAYOUT = (4, 1, 8, "float32")
FULL = CacheGroupSpec(FullAttentionSpec(*LAYOUT))
WINDOW = CacheGroupSpec(SlidingWindowSpec(*LAYOUT, sliding_window=6))
CHUNK = CacheGroupSpec(ChunkedLocalAttentionSpec(*LAYOUT, attention_chunk_size=10))
BIG = CacheGroupSpec(FullAttentionSpec(8, 1, 8, "float32"))
STATE = CacheGroupSpec(MambaSpec(4, [(2, 8)], "float32"))
CHECKPOINTS = CacheGroupSpec(MambaSpec(4, [(2, 8)], "float32", cache_mode="align"))
GROUPS = {
    "full": [FULL],
    "window": [FULL, WINDOW],
    "windows": [WINDOW, WINDOW, FULL],
    "chunk": [CHUNK, FULL],
    "page sizes": [BIG, FULL],
    "state": [FULL, STATE],
    "checkpoints": [CHECKPOINTS, WINDOW],
}


def next_token(tokens: Sequence[int]) -> int:
    """What the model says after these: any change of a token, or of their order, may change it."""
    state = 7
    for token in tokens:
        state = (state * 31 + token + 1) % 1009
    return state % 6


def answer_alone(prompt: Sequence[int], max_new_tokens: int, eos_id: int | None = EOS) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_new_tokens:
        tokens.append(next_token(tokens))
        if tokens[-1] == eos_id:
            break
    return tokens[len(prompt) :]


class Server:
    """A scheduler, and pages that hold tokens in place of K/V: what a model reads is what was written.

    Checks each step: the budget, what is computed, the manager's invariants.
    """

    def __init__(self, num_pages: int = 30, groups: list[CacheGroupSpec] | None = None, **options):
        manager_options = {
            name: options.pop(name)
            for name in ("use_eagle", "enable_caching", "data_parallel_size")
            if name in options
        }
        groups = groups or [FULL]
        self.manager = CacheManager(num_pages, groups, MAX_MODEL_LEN, **manager_options)
        self.max_running = options.setdefault("max_running", 4)
        self.token_budget = options.setdefault("token_budget", 16)
        self.chunk_size = options.get("chunk_size") or self.token_budget
        self.eos_id = options.setdefault("eos_id", EOS)
        self.scheduler = Scheduler(self.manager, **options)
        # The group whose pages keep every token, if there is one: its slots stand for the model.
        kinds = [type(group.kv_cache_spec) for group in groups]
        self.full = kinds.index(FullAttentionSpec) if FullAttentionSpec in kinds else None
        page_size = max(self.manager.page_sizes)
        self.memory = np.full(num_pages * page_size, -1)
        self.requests: dict[int, tuple[Request, int, int]] = {}  # handle: request, prompt, limit
        self.finished: list[Request] = []
        self.started: list[int] = []  # handles in order of their first step
        self.num_steps = 0

    def submit(self, prompt: Sequence[int], max_new_tokens: int = 4, priority: int = 0) -> int:
        request = Request(f"r{len(self.requests)}", prompt)
        handle = self.scheduler.submit(request, max_new_tokens, priority=priority)
        self.requests[handle] = request, len(prompt), max_new_tokens
        return handle

    def step(self) -> Step:
        had_work, num_preemptions = self.scheduler.has_work, self.scheduler.num_preemptions
        ran = {h for h, (request, *_) in self.requests.items() if request.is_allocated}
        step = self.scheduler.schedule()
        if self.scheduler.num_preemptions > num_preemptions:
            assert ran.issuperset(step.handles.tolist()), "nobody is started when the pool is full"
        self.manager.check_invariants()
        self.num_steps += 1
        assert (len(step.handles) > 0) == had_work, "whoever can run alone runs"
        if not had_work:
            return step
        self.check(step)
        said = self.run_model(step)
        is_finished = self.scheduler.complete(step, np.array(said))
        self.manager.check_invariants()
        for handle in step.handles[is_finished].tolist():
            self.check_answer(handle)
        return step

    def check(self, step: Step) -> None:
        handles, counts = step.handles.tolist(), step.num_new_tokens
        assert 1 <= len(handles) == len(set(handles)) <= self.max_running
        assert self.scheduler.num_running <= self.max_running
        assert counts.min() >= 1
        assert counts.max() <= self.chunk_size
        assert counts.sum() <= self.token_budget
        for i, handle in enumerate(handles):
            request, num_prompt, _ = self.requests[handle]
            if handle not in self.started:
                self.started.append(handle)
            assert request.num_computed_tokens == step.num_computed_tokens[i]
            left = request.num_tokens - request.num_computed_tokens
            assert step.speaks[i] == (counts[i] == left)
            assert step.is_decoding[i] == (left == 1 and request.num_tokens > num_prompt)
        shard_size = self.manager.num_pages // self.manager.data_parallel_size
        for group in range(self.manager.num_groups):
            for row in self.manager.page_table(step.handles, group=group):
                assert len(set(row[row > 0] // shard_size)) <= 1, "a request stays in its shard"

    def run_model(self, step: Step) -> list[int]:
        tokens = self.manager.next_tokens(step.handles, step.num_new_tokens)
        if self.full is None:
            return [next_token(self.requests[handle][0].tokens) for handle in step.handles.tolist()]
        slots = self.manager.slot_mapping(step.handles, step.num_new_tokens, self.full)
        table = self.manager.page_table(step.handles, group=self.full)
        assert len(set(slots.tolist())) == len(slots)
        self.memory[slots] = tokens
        page_size = self.manager.page_sizes[self.full]
        said = []
        for i, row in enumerate(table):
            length = step.num_computed_tokens[i] + step.num_new_tokens[i]
            places = (row[:, None] * page_size + np.arange(page_size)).ravel()[:length]
            said.append(next_token(self.memory[places].tolist()))
        return said

    def check_answer(self, handle: int) -> None:
        request, num_prompt, limit = self.requests.pop(handle)
        tokens = request.tokens.tolist()
        assert tokens[num_prompt:] == answer_alone(tokens[:num_prompt], limit, self.eos_id)
        self.finished.append(request)

    def run(self, max_steps: int = 5000) -> None:
        for _ in range(max_steps):
            if not self.scheduler.has_work:
                break
            self.step()
        assert not self.scheduler.has_work, "livelock"
        assert not self.requests
        assert self.scheduler.num_running == self.scheduler.num_waiting == 0
        assert self.manager.num_free_pages == self.manager.num_pages - 1
        assert self.manager.num_requests == 0


def most_pages(groups: list[CacheGroupSpec], num_tokens: int, chunk_size: int) -> int:
    """Pages of the smallest pool that takes a request of so many tokens, the null page among them."""
    manager = CacheManager(1000, groups, MAX_MODEL_LEN)
    return 1 + manager.max_pages_per_request(num_tokens, max_new_tokens=chunk_size)


# Tokens of few kinds, and long runs of them, so that prompts share prefixes.
PROMPTS = st.builds(
    lambda shared, own: [0] * shared + own,
    st.integers(0, 26),
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
)
ARRIVALS = st.lists(
    st.tuples(
        PROMPTS,
        st.integers(1, 12),  # max_new_tokens
        st.integers(-1, 1),  # priority
        st.integers(0, 4),  # steps before the next one comes
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@settings(deadline=None)
@given(data=st.data())
def test_every_answer_is_the_one_it_would_be_alone(groups: list[CacheGroupSpec], data) -> None:
    """Whatever arrives when, however small the pool is: smallest pools make storms of preemptions."""
    arrivals = data.draw(ARRIVALS, "arrivals")
    max_running = data.draw(st.integers(1, 5), "max_running")
    token_budget = max_running + data.draw(st.integers(0, 20), "more budget")
    chunk_size = data.draw(st.none() | st.integers(1, 20), "chunk_size")
    longest = max(len(prompt) + limit - 1 for prompt, limit, *_ in arrivals)
    smallest = most_pages(groups, longest, min(chunk_size or token_budget, token_budget))
    num_shards = data.draw(st.sampled_from([1, 1, 2, 3]), "num_shards")
    server = Server(
        num_shards * (smallest + data.draw(st.integers(0, 20), "more pages")),
        groups,
        data_parallel_size=num_shards,
        max_running=max_running,
        token_budget=token_budget,
        chunk_size=chunk_size,
        watermark=data.draw(st.sampled_from([0, 0.1, 1]), "watermark"),
        full_sequence_must_fit=data.draw(st.booleans(), "full_sequence_must_fit"),
        enable_caching=data.draw(st.booleans(), "enable_caching"),
        use_eagle=data.draw(st.booleans(), "use_eagle"),
    )
    for prompt, limit, priority, pause in arrivals:
        server.submit(prompt, limit, priority)
        for _ in range(pause):
            server.step()
    server.run()
    assert len(server.finished) == len(arrivals)


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("chunk_size", [1, 3, 16])
@pytest.mark.parametrize("full_sequence_must_fit", [False, True])
def test_a_storm_in_the_smallest_pool_ends(
    groups: list[CacheGroupSpec], chunk_size: int, full_sequence_must_fit: bool
) -> None:
    server = Server(
        most_pages(groups, 29, chunk_size),
        groups,
        eos_id=None,
        max_running=8,
        chunk_size=chunk_size,
        watermark=0,
        full_sequence_must_fit=full_sequence_must_fit,
    )
    for i in range(10):
        server.submit([i % 4] * (2 + 2 * i), 30 - (2 + 2 * i))
    server.run()
    assert len(server.finished) == 10


def test_small_pools_preempt_and_large_ones_do_not() -> None:
    for num_pages, is_small in ((12, True), (100, False)):
        server = Server(num_pages, eos_id=None, watermark=0)
        for first in range(4):
            server.submit([first] * 8, 20)
        server.run()
        assert (server.scheduler.num_preemptions > 0) == is_small


# Order


def test_first_come_first_served() -> None:
    server = Server(eos_id=None, max_running=2)
    handles = [server.submit([i, 1, 2], 3) for i in range(6)]
    server.run()
    assert server.started == handles


def test_lower_priorities_start_earlier_and_ties_go_by_arrival() -> None:
    server = Server(eos_id=None, max_running=1)
    priorities = [0, 5, -3, 0, 5, -3]
    handles = [server.submit([i, 1, 2], 2, priority) for i, priority in enumerate(priorities)]
    server.run()
    assert server.started == [handles[i] for i in (2, 5, 0, 3, 1, 4)]


@settings(deadline=None)
@given(
    priorities=st.lists(st.integers(-2, 2), min_size=2, max_size=10), num_pages=st.integers(9, 20)
)
def test_nobody_is_overtaken_within_a_priority(priorities: list[int], num_pages: int) -> None:
    server = Server(num_pages, max_running=3, eos_id=None)
    handles = [server.submit([i] * 9, 12, priority) for i, priority in enumerate(priorities)]
    server.run()
    assert server.started == sorted(handles, key=lambda h: (priorities[handles.index(h)], h))


def test_the_last_of_the_lowest_priority_is_preempted() -> None:
    """Each holds 2 pages of 9, and soon needs a third: 2 of the 4 have to go."""
    server = Server(10, eos_id=None, max_running=4, watermark=0)
    low = server.submit([0] * 7, 20, priority=1)
    others = [server.submit([i] * 7, 20) for i in (1, 2, 3)]
    server.step()
    while not server.scheduler.num_preemptions:
        step = server.step()
    assert step.handles.tolist() == others
    while server.scheduler.num_preemptions < 2:
        step = server.step()
    assert step.handles.tolist() == others[:2], "the youngest of equals goes next"
    while len(server.finished) < 2:
        step = server.step()
    back = [handle for handle in step.handles.tolist() if handle in (low, others[2])]
    assert not back or back[0] == others[2], "and is back before those of lower priority"
    server.run()


def test_a_preempted_request_finds_its_pages_again() -> None:
    """Both need a fourth page of 7 for their first word. Nobody takes those that the second leaves."""
    server = Server(8, eos_id=None, max_running=2, watermark=0)
    server.submit([1] * 12, 4)
    second = server.submit([2] * 12, 3)
    while server.scheduler.has_work and not server.scheduler.num_preemptions:
        server.step()
    request, *_ = server.requests[second]
    assert not request.is_allocated
    assert request.num_tokens == 13, "it keeps what it has said"
    server.run()
    assert server.scheduler.num_preemptions == 1
    assert server.scheduler.num_tokens_reused == 12


def test_a_preempted_request_comes_back_before_younger_ones() -> None:
    server = Server(8, eos_id=None, max_running=2, watermark=0)
    server.submit([1] * 12, 4)
    second = server.submit([2] * 12, 3)
    third = server.submit([3, 3], 1)
    request, *_ = server.requests[second]
    while third not in server.started:
        server.step()
    assert server.scheduler.num_preemptions == 1
    assert request.is_allocated
    server.run()


# Budget


def test_decodes_come_before_chunks() -> None:
    """A long prompt that is in front of them takes no token from those that talk."""
    server = Server(60, eos_id=None, max_running=3, token_budget=8)
    talking = [server.submit([i, i], 20) for i in (1, 2)]
    server.step()
    long = server.submit([3] * 30, 5, priority=-1)
    step = server.step()
    assert step.handles.tolist() == [long, *talking]
    for left in (24, 18, 12, 6):
        assert step.num_new_tokens.tolist() == [6, 1, 1]
        assert step.is_decoding.tolist() == [False, True, True]
        assert step.speaks.tolist() == [left == 0, True, True]
        step = server.step()
    assert step.speaks.tolist() == [True, True, True]


def test_prompts_share_what_is_left_of_the_budget() -> None:
    server = Server(60, eos_id=None, max_running=4, token_budget=10, enable_caching=False)
    handles = [server.submit([i] * 7, 5) for i in range(4)]
    steps = [server.step() for _ in range(3)]
    assert [step.num_new_tokens.tolist() for step in steps] == [[7, 3], [1, 4, 5], [1, 1, 2, 6]]
    assert steps[2].handles.tolist() == handles


def test_chunks_are_no_longer_than_asked_for() -> None:
    server = Server(60, eos_id=None, token_budget=16, chunk_size=5, enable_caching=False)
    for i in range(4):
        server.submit([i] * 12)
    steps = [server.step().num_new_tokens.tolist() for _ in range(4)]
    assert steps == [[5, 5, 5, 1], [5, 5, 5, 1], [2, 2, 2, 5], [1, 1, 1, 5]]


# Admission


def test_the_full_sequence_must_fit() -> None:
    """The first chunk of the second would fit beside the first, all of it would not."""
    for must_fit in (True, False):
        server = Server(
            12, eos_id=None, token_budget=12, full_sequence_must_fit=must_fit, watermark=0
        )
        server.submit([1] * 20, 2)
        server.submit([2] * 30, 2)
        steps = [server.step() for _ in range(2)]
        assert [step.num_new_tokens.tolist() for step in steps] == (
            [[12], [8]] if must_fit else [[12], [8, 4]]
        )
        server.run()


def test_pages_of_a_shared_prefix_need_not_be_free() -> None:
    server = Server(12, eos_id=None, watermark=0, token_budget=24)
    server.submit([1] * 24, 9)
    server.step()
    server.submit([1] * 24 + [2] * 8, 1)  # 8 pages, 5 are free
    assert len(server.step().handles) == 2
    assert server.scheduler.num_tokens_reused == 24
    server.run()


def test_the_watermark_stays_free_for_those_that_run() -> None:
    """Of 20 pages 5 stay free: 4 requests of 4 pages would leave 4."""
    server = Server(21, eos_id=None, max_running=8, token_budget=64, watermark=0.25)
    for i in range(4):
        server.submit([i] * 15, 1)
    assert len(server.step().handles) == 3
    server.run()
    alone = Server(9, eos_id=None, watermark=1.0)
    alone.submit([0] * 30, 3)  # nobody runs: nothing is kept
    alone.run()


def test_requests_wait_for_a_prefix_that_is_being_computed() -> None:
    server = Server(60, eos_id=None, token_budget=12)
    for own in range(4):
        server.submit([9] * 21 + [own] * 3, 2)
    server.run()
    assert server.scheduler.num_tokens_reused == 3 * 20


def test_requests_with_nothing_in_common_do_not_wait() -> None:
    server = Server(60, eos_id=None, token_budget=32)
    for own in range(4):
        server.submit([own] * 8, 2)
    assert len(server.step().handles) == 4


@pytest.mark.parametrize("groups", [[BIG, FULL], [FULL]], ids=["page sizes", "full"])
def test_prefixes_are_shared_with_eagle_too(groups: list[CacheGroupSpec]) -> None:
    """The last unit of each hit is computed again."""
    server = Server(90, groups, eos_id=None, token_budget=12, use_eagle=True)
    unit = server.manager.prefix_unit
    for own in range(3):
        server.submit([9] * 32 + [own] * 3, 2)
    server.run()
    assert server.scheduler.num_tokens_reused == 2 * (32 - unit)


# Callers


def test_tokens_of_the_answer_are_those_of_the_request() -> None:
    server = Server()
    server.submit([1, 2, 3], 6)
    server.run()
    (request,) = server.finished
    assert request.tokens.tolist()[3:] == answer_alone([1, 2, 3], 6)


def test_without_eos_an_answer_ends_at_its_limit() -> None:
    manager = CacheManager(30, [FULL], MAX_MODEL_LEN)
    scheduler = Scheduler(manager)
    request = Request("a", [1, 2])
    scheduler.submit(request, 3)
    for said in (EOS, 5, EOS):
        step = scheduler.schedule()
        is_finished = scheduler.complete(step, [said])
    assert is_finished.tolist() == [True]
    assert request.tokens.tolist() == [1, 2, EOS, 5, EOS]


def test_no_work_is_an_empty_step() -> None:
    scheduler = Server().scheduler
    assert not scheduler.has_work
    assert len(scheduler.schedule().handles) == 0
    assert len(scheduler.schedule().handles) == 0


def test_requests_may_come_while_a_step_is_computed() -> None:
    server = Server()
    server.submit([1, 2, 3], 3)
    step = server.scheduler.schedule()
    server.submit([2, 3], 3, priority=-1)
    assert server.scheduler.num_waiting == 1
    server.scheduler.complete(step, server.run_model(step))
    server.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_running": 0}, "max_running must be at least 1, got 0"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
        ({"token_budget": 3}, "token_budget must be at least max_running 4, got 3"),
        ({"watermark": -0.1}, "watermark must be in [0, 1], got -0.1"),
        ({"watermark": float("nan")}, "watermark must be in [0, 1], got nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"[Scheduler] {message}")):
        Server(**options)


def shard_of(server: Server, handle: int) -> int:
    page = server.manager.page_table([handle])[0, 0]
    return int(page) // (server.manager.num_pages // server.manager.data_parallel_size)


def test_a_request_goes_where_its_prefix_is_and_else_where_fewest_run() -> None:
    server = Server(60, data_parallel_size=3, token_budget=64)
    handles = [server.submit([kind] * 12) for kind in (1, 2, 3, 2)]
    server.step()
    shards = [shard_of(server, handle) for handle in handles[:3]]
    assert sorted(shards) == [0, 1, 2]
    server.step()  # the fourth has waited for the prefix of the second
    assert shard_of(server, handles[3]) == shards[1]
    server.run()
    assert server.scheduler.num_tokens_reused == 8


def test_a_full_shard_sends_requests_to_others() -> None:
    # 7 and 8 pages to give; each takes 6, and 1 for the answer. The second shares one with the first.
    server = Server(16, data_parallel_size=2, token_budget=64, eos_id=None)
    first = server.submit([1] * 24)
    server.step()
    second = server.submit([1] * 4 + [2] * 20)
    server.step()
    assert shard_of(server, first) != shard_of(server, second)
    server.run()


def test_only_requests_of_a_full_shard_are_preempted() -> None:
    server = Server(16, data_parallel_size=2, token_budget=64, eos_id=None, watermark=0)
    others = server.submit([9] * 4, 20)
    handles = [server.submit([kind] * 12, 12) for kind in (1, 2, 3)]
    last = server.submit([8] * 4, 20)
    server.step()
    assert [shard_of(server, h) for h in (others, *handles)].count(shard_of(server, others)) == 2
    before = server.scheduler.num_preemptions
    while server.scheduler.num_preemptions == before:
        server.step()
    running = {h for h in server.requests if server.requests[h][0].is_allocated}
    assert others in running
    assert last not in running
    server.run()


def test_a_request_must_fit_a_shard() -> None:
    server = Server(16, data_parallel_size=2)
    server.submit([1] * 24, 5)
    with pytest.raises(ValueError, match="30 tokens need 8 pages: the first shard has 7 to give"):
        server.submit([1] * 28, 2)
    server.run()


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "the prompt must have at least 1 token"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ([1], {"priority": 2**31}, "priority must fit in int32, got 2147483648"),
        (
            [1] * 60,
            {"max_new_tokens": 5},
            "60 prompt tokens and 5 new ones: the model takes at most 64",
        ),
        ([1] * 20, {"max_new_tokens": 10}, "30 tokens need 8 pages: the pool has 7 to give"),
    ],
)
def test_a_request_that_can_never_run_is_refused(
    prompt: list[int], options: dict[str, int], message: str
) -> None:
    server = Server(8)
    request = Request("big", prompt)
    with pytest.raises(ValueError, match=re.escape(f"[Scheduler.submit] big: {message}")):
        server.scheduler.submit(request, **({"max_new_tokens": 1} | options))
    assert not server.scheduler.has_work
    assert len(server.manager.add_requests([request])) == 1, "it has got no handle"


@pytest.mark.parametrize("options", [{}, {"data_parallel_size": 2}])
@pytest.mark.parametrize("num_pages", [8, 40])
def test_what_can_be_served_is_what_is_taken(num_pages: int, options: dict[str, int]) -> None:
    taken, can_be_served = [], []
    for num_tokens in range(2, MAX_MODEL_LEN + 3):
        scheduler = Server(num_pages, **options).scheduler
        can_be_served.append(scheduler.can_serve(num_tokens))
        try:
            scheduler.submit(Request("a", [1] * (num_tokens - 1)), 1)
            taken.append(True)
        except ValueError:
            taken.append(False)
    assert can_be_served == taken
    assert len(set(taken)) == 2


@pytest.mark.parametrize("options", [{"max_new_tokens": 2.5}, {"priority": 0.5}])
def test_numbers_that_are_no_integers_are_refused(options: dict[str, float]) -> None:
    server = Server()
    with pytest.raises(TypeError):
        server.scheduler.submit(Request("a", [1]), **({"max_new_tokens": 1} | options))
    assert not server.scheduler.has_work


def test_extra_keys_that_cannot_be_hashed_are_refused() -> None:
    manager = CacheManager(30, [FULL], MAX_MODEL_LEN, hash_algorithm="sha256")
    scheduler = Scheduler(manager)
    request = Request("salty", [1, 2, 3], cache_salt="tenant")
    with pytest.raises(ValueError, match="sha256"):
        scheduler.submit(request, 2)
    assert not scheduler.has_work
    assert len(manager.add_requests([request])) == 1, "it has got no handle"


def test_a_request_that_just_fits_runs() -> None:
    server = Server(8)
    server.submit([1] * 20, 9)  # the last token needs no room
    server.run()


def test_requests_of_others_are_refused() -> None:
    server = Server()
    held, known = Request("held", [1, 2]), Request("known", [1, 2])
    assert server.manager.allocate(held, 2)
    with pytest.raises(ValueError, match="held: the request holds pages already"):
        server.scheduler.submit(held, 3)
    server.manager.add_requests([known])
    with pytest.raises(ValueError, match="request 'known' has a handle already"):
        server.scheduler.submit(known, 3)
    assert not server.scheduler.has_work


@pytest.mark.parametrize(
    ("next_tokens", "message"),
    [
        ([1], "next_tokens must be 2 integers, got int64 of shape (1,)"),
        ([[1], [2]], "got int64 of shape (2, 1)"),
        ([1.0, 2.0], "got float64 of shape (2,)"),
        ([2**31, 1], "next_tokens must fit in int32"),
    ],
)
def test_next_tokens_that_cannot_be_are_refused(next_tokens: object, message: str) -> None:
    server = Server()
    server.submit([1, 2, 3], 3)
    server.submit([2, 3], 3)
    step = server.scheduler.schedule()
    before = server.manager.num_free_pages, server.manager.num_cached_pages
    with pytest.raises(ValueError, match=rf"\[Scheduler.complete\] .*{re.escape(message)}"):
        server.scheduler.complete(step, next_tokens)
    assert before == (server.manager.num_free_pages, server.manager.num_cached_pages)
    server.scheduler.complete(step, server.run_model(step))
    server.run()


def test_steps_are_completed_once_and_in_turn() -> None:
    server = Server()
    server.submit([1, 2, 3], 3)
    step = server.scheduler.schedule()
    with pytest.raises(ValueError, match=r"\[Scheduler.schedule\] the step before is not complete"):
        server.scheduler.schedule()
    server.scheduler.complete(step, server.run_model(step))
    with pytest.raises(ValueError, match="the step is not the one to be completed"):
        server.scheduler.complete(step, [0])
    server.run()
