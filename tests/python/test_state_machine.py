"""Any sequence of calls: `CacheManager` and the oracle decide alike, and the invariants hold."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from oracle import Oracle
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request

MAX_MODEL_LEN = 40
# Two tokens only, so that prompts often share prefixes.
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=24).map(tuple)


class ManagerMachine(RuleBasedStateMachine):
    num_pages, page_size, num_groups = 12, 3, 1
    waiting = Bundle("waiting")
    running = Bundle("running")

    def __init__(self):
        super().__init__()
        spec = FullAttentionSpec(self.page_size, 1, 8, "bfloat16")
        groups = [CacheGroupSpec(spec)] * self.num_groups
        self.manager = CacheManager(self.num_pages, groups, MAX_MODEL_LEN)
        self.oracle = Oracle(self.num_pages, self.page_size, self.num_groups)
        self.count = 0

    @rule(target=waiting, tokens=TOKENS)
    def arrive(self, tokens):
        self.count += 1
        return Request(f"r{self.count}", tokens)

    @rule(request=waiting)
    def match(self, request):
        tokens = tuple(request.tokens)
        assert self.manager.match(request) == self.oracle.match(request.request_id, tokens)

    @rule(target=running, request=consumes(waiting), data=st.data())
    def admit(self, request, data):
        tokens = tuple(request.tokens)
        cached = self.manager.match(request)
        assert cached == self.oracle.match(request.request_id, tokens)
        cached -= self.page_size * data.draw(st.integers(0, cached // self.page_size), "left out")
        num_new = data.draw(st.integers(1, len(tokens) - cached), "new")
        done = self.manager.allocate(request, num_new, num_cached_tokens=cached)
        assert done == self.oracle.allocate(request.request_id, tokens, num_new, cached)
        return request

    @rule(request=running, data=st.data())
    def commit(self, request, data):
        if not request.is_allocated:
            with pytest.raises(ValueError, match="holds no pages"):
                self.manager.commit(request, 1)
            return
        low, high = request.num_computed_tokens, self.manager.num_allocated_tokens(request)
        computed = data.draw(st.integers(low, high), "computed")
        self.manager.commit(request, computed)
        self.oracle.commit(request.request_id, tuple(request.tokens), computed)

    @rule(request=running, token=st.integers(0, 1), data=st.data())
    def grow(self, request, token, data):
        if not request.is_allocated or request.num_tokens >= MAX_MODEL_LEN:
            return
        request.append(token)
        num_new = data.draw(st.integers(1, request.num_tokens - request.num_computed_tokens), "new")
        done = self.manager.allocate(request, num_new)
        assert done == self.oracle.allocate(request.request_id, tuple(request.tokens), num_new)

    @rule(request=consumes(running))
    def free(self, request):
        if request.is_allocated:
            self.manager.free(request)
            self.oracle.release(request.request_id)
        else:
            with pytest.raises(ValueError, match="holds no pages"):
                self.manager.free(request)

    @rule()
    def reset(self):
        assert self.manager.reset_prefix_cache() == self.oracle.reset()

    @rule(requests=st.lists(running, unique_by=id, max_size=3))
    def tables(self, requests):
        requests = [request for request in requests if request.is_allocated]
        counts = [
            self.manager.num_allocated_tokens(request) - request.num_computed_tokens
            for request in requests
        ]
        for group in range(self.num_groups):
            rows = [self.oracle.rows[request.request_id][group] for request in requests]
            width = max(map(len, rows), default=0)
            table = self.manager.page_table(requests, group=group)
            assert table.tolist() == [row + [0] * (width - len(row)) for row in rows]
            slots = [
                row[i // self.page_size] * self.page_size + i % self.page_size
                for request, row, count in zip(requests, rows, counts, strict=True)
                for i in range(request.num_computed_tokens, request.num_computed_tokens + count)
            ]
            assert self.manager.slot_mapping(requests, counts, group=group).tolist() == slots

    @invariant()
    def agree(self):
        self.manager.check_invariants()
        assert self.manager.num_free_pages == len(self.oracle.free)
        assert self.manager.num_cached_pages == len(self.oracle.cached)
        assert self.manager.num_requests == len(self.oracle.rows)


class TwoGroupMachine(ManagerMachine):
    num_pages, num_groups = 20, 2


class TokenPageMachine(ManagerMachine):
    num_pages, page_size = 30, 1


TestManager = ManagerMachine.TestCase
TestTwoGroups = TwoGroupMachine.TestCase
TestTokenPages = TokenPageMachine.TestCase
