"""Any sequence of calls: `CacheManager` and the oracle decide alike, and the invariants hold."""

import copy

import pytest
from forking_oracle import ForkingOracle
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)
from oracle import Group
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    ChunkedLocalAttentionSpec,
    CrossAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    Request,
    SlidingWindowSpec,
)

MAX_MODEL_LEN = 40
# Two tokens only, so that prompts often share prefixes.
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=30).map(tuple)


def spec_of(group):
    if group.kind in ("state", "checkpoints"):
        mode = "align" if group.kind == "checkpoints" else "none"
        return MambaSpec(group.page_size, [(2, 8)], "float32", cache_mode=mode)
    layout = (group.page_size, 1, 8, "bfloat16")
    if group.kind == "window":
        return SlidingWindowSpec(*layout, sliding_window=group.size)
    if group.kind == "chunk":
        return ChunkedLocalAttentionSpec(*layout, attention_chunk_size=group.size)
    return {"full": FullAttentionSpec, "cross": CrossAttentionSpec}[group.kind](*layout)


class ManagerMachine(RuleBasedStateMachine):
    num_pages, groups, eagle, num_shards = 12, [Group("full", 3)], False, 1
    deduplicate = False
    waiting = Bundle("waiting")
    running = Bundle("running")

    def __init__(self):
        super().__init__()
        specs = [CacheGroupSpec(spec_of(group)) for group in self.groups]
        self.manager = CacheManager(
            self.num_pages,
            specs,
            MAX_MODEL_LEN,
            use_eagle=self.eagle,
            data_parallel_size=self.num_shards,
            deduplicate=self.deduplicate,
        )
        self.oracle = ForkingOracle(
            self.num_pages, self.groups, MAX_MODEL_LEN, self.eagle, self.num_shards
        )
        self.oracle.deduplicate = self.deduplicate
        self.count = 0

    @rule(target=waiting, tokens=TOKENS, num_encoder_tokens=st.integers(0, 7))
    def arrive(self, tokens, num_encoder_tokens):
        self.count += 1
        return Request(f"r{self.count}", tokens, num_encoder_tokens=num_encoder_tokens)

    def draw_shard(self, data):
        """A shard or none, told to the oracle as well."""
        shards = st.none() if self.num_shards == 1 else st.integers(0, self.num_shards - 1)
        self.oracle.shard = data.draw(st.none() | shards, "shard")
        return self.oracle.shard

    @rule(request=waiting, data=st.data())
    def match(self, request, data):
        self.match_in(request, self.draw_shard(data))

    def match_in(self, request, shard):
        cached = self.manager.match(request, dp_shard=shard)
        assert cached == self.oracle.match(request.request_id, tuple(request.tokens))
        return cached

    @rule(target=running, request=consumes(waiting), data=st.data())
    def admit(self, request, data):
        tokens = tuple(request.tokens)
        shard = self.draw_shard(data)
        cached = self.match_in(request, shard)
        unit = self.manager.prefix_unit
        if cached:  # or a part of it, as far as that can be shared by itself
            part = unit * data.draw(st.integers(0, cached // unit), "part")
            cached = part if not part or self.oracle.can_share(tokens, part, 0) else cached
        self.allocate(request, cached, shard, data)
        return request

    def allocate(self, request, cached, shard, data):
        rest = request.num_tokens - request.num_computed_tokens - cached
        num_new = data.draw(st.integers(1, rest), "new")
        lookahead = data.draw(st.integers(0, 3), "lookahead")
        done = self.manager.allocate(
            request,
            num_new,
            num_cached_tokens=cached,
            num_lookahead_tokens=lookahead,
            dp_shard=shard,
        )
        assert done == self.oracle.allocate(
            request.request_id,
            tuple(request.tokens),
            num_new,
            cached,
            lookahead,
            request.num_encoder_tokens,
        )

    @rule(request=running, data=st.data())
    def commit(self, request, data):
        if not request.is_allocated:
            with pytest.raises(ValueError, match="holds no pages"):
                self.manager.commit(request, 1)
            return
        high = min(self.manager.num_allocated_tokens(request), request.num_tokens)
        computed = data.draw(st.integers(request.num_computed_tokens, high), "computed")
        before = copy.deepcopy(self.oracle.rows[request.request_id])
        has_changed = self.manager.commit(request, computed)
        self.oracle.commit(request.request_id, tuple(request.tokens), computed)
        assert has_changed == (self.oracle.rows[request.request_id] != before)

    @rule(request=running, token=st.integers(0, 1), data=st.data())
    def grow(self, request, token, data):
        if request.is_allocated and request.num_tokens < MAX_MODEL_LEN:
            request.append(token)
            self.allocate(request, 0, self.draw_shard(data), data)

    @rule(request=running, guesses=st.lists(st.integers(0, 1), max_size=5), data=st.data())
    def guess(self, request, guesses, data):
        """Appends draft tokens, makes room for some, and takes off those that are rejected."""
        if not request.is_allocated or request.num_tokens + len(guesses) > MAX_MODEL_LEN:
            return
        request.append(guesses)
        if request.num_tokens > request.num_computed_tokens:
            self.allocate(request, 0, self.draw_shard(data), data)
        num_kept = data.draw(st.integers(request.num_computed_tokens, request.num_tokens), "kept")
        kept = request.tokens[:num_kept].tolist()
        request.truncate(num_kept)
        assert request.tokens.tolist() == kept

    @rule(target=running, parent=running)
    def fork(self, parent):
        if not parent.num_computed_tokens:
            return multiple()
        self.count += 1
        child = parent.copy(f"r{self.count}")
        copies = self.manager.fork(parent, child)
        expected = self.oracle.fork(parent.request_id, child.request_id)
        assert (copies and [pairs.tolist() for pairs in copies]) == expected
        assert child.num_computed_tokens == (parent.num_computed_tokens if copies else 0)
        return child if copies else multiple()

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
    def slots(self, requests):
        requests = [request for request in requests if request.is_allocated]
        for g, group in enumerate(self.groups):
            counts, expected = [], []
            for request in requests:
                computed, row = request.num_computed_tokens, self.oracle.rows[request.request_id][g]
                counts.append(self.oracle.room[request.request_id] - computed)
                expected += [
                    row[t // group.page_size] * group.page_size + t % group.page_size
                    for t in range(computed, computed + counts[-1])
                    if group.kind in ("full", "window", "chunk")
                ]
            if group.kind in ("full", "window", "chunk"):
                assert self.manager.slot_mapping(requests, counts, group=g).tolist() == expected
            else:
                with pytest.raises(ValueError, match=f"group {g} keeps no K/V of the tokens"):
                    self.manager.slot_mapping(requests, counts, group=g)

    @invariant()
    def agree(self):
        self.manager.check_invariants()
        assert self.manager.num_free_pages == len(self.oracle.free)
        assert self.manager.num_cached_pages == len(self.oracle.cached)
        assert self.manager.num_requests == len(self.oracle.rows)

    @rule(request=running)
    def look(self, request):
        if request.is_allocated:
            rows = self.oracle.rows[request.request_id]
            for g, row in enumerate(rows):
                assert self.manager.page_table([request], group=g).tolist() == [row]


MIXES = {
    "Full": (12, [Group("full", 3)]),
    "TokenPages": (30, [Group("full", 1)]),
    "TwoFull": (20, [Group("full", 3), Group("full", 3)]),
    "Window": (10, [Group("window", 3, 7)]),
    "WindowOfOne": (10, [Group("window", 2, 1)]),
    "Chunk": (10, [Group("chunk", 3, 6)]),
    "ChunkAcrossPages": (12, [Group("chunk", 3, 7)]),
    "State": (6, [Group("state", 4)]),
    "Checkpoints": (10, [Group("checkpoints", 4)]),
    "FullWindow": (16, [Group("full", 3), Group("window", 3, 5)]),
    "FullChunk": (18, [Group("chunk", 2, 6), Group("full", 4)]),
    "FullCheckpoints": (16, [Group("full", 2), Group("checkpoints", 4)]),
    "FullCross": (18, [Group("full", 3), Group("cross", 2)]),
    "Everything": (
        40,
        [Group("window", 2, 5), Group("full", 4), Group("chunk", 1, 6), Group("checkpoints", 2)],
    ),
}

SHARDED_MIXES = {
    "FullShards": (24, [Group("full", 3)], 3),
    "WindowShards": (16, [Group("window", 3, 7)], 2),
    "WindowOfOneShards": (12, [Group("window", 2, 1)], 4),
    "ChunkShards": (20, [Group("chunk", 3, 6)], 2),
    "CheckpointsShards": (12, [Group("checkpoints", 4)], 3),
    "FullWindowShards": (32, [Group("full", 3), Group("window", 3, 5)], 2),
    "EverythingShards": (80, MIXES["Everything"][1], 2),
}


DEDUPLICATED_MIXES = {
    "FullDeduplicated": (16, [Group("full", 2)], 1),
    "FullWindowDeduplicated": (20, [Group("full", 3), Group("window", 3, 5)], 1),
    "EverythingDeduplicated": (80, MIXES["Everything"][1], 2),
}


def machine_of(name, num_pages, groups, num_shards, eagle, deduplicate=False):
    values = {
        "num_pages": num_pages,
        "groups": groups,
        "num_shards": num_shards,
        "eagle": eagle,
        "deduplicate": deduplicate,
    }
    return type(f"{name}Machine", (ManagerMachine,), values).TestCase


for _name, (_num_pages, _groups) in MIXES.items():
    for _suffix, _eagle in (("", False), ("Eagle", True)):
        _full_name = _name + _suffix
        globals()[f"Test{_full_name}"] = machine_of(_full_name, _num_pages, _groups, 1, _eagle)
for _name, (_num_pages, _groups, _num_shards) in SHARDED_MIXES.items():
    globals()[f"Test{_name}"] = machine_of(_name, _num_pages, _groups, _num_shards, False)
for _name, (_num_pages, _groups, _num_shards) in DEDUPLICATED_MIXES.items():
    globals()[f"Test{_name}"] = machine_of(_name, _num_pages, _groups, _num_shards, False, True)
