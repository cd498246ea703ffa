"""Any sequence of calls: what the events add up to is what the manager can find."""

from event_reader import Index, decode_array, decode_map, keys_of
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from oracle import Group
from pagedkv import CacheGroupSpec, CacheManager, PagesCleared
from pagedkv.events import EventEncoder
from pagedkv.events.index import PageIndex
from test_state_machine import MAX_MODEL_LEN, ManagerMachine


class EventsMachine(ManagerMachine):
    """Takes the events now and then, and lets one reader a shard and wire format follow."""

    max_pages = 1000

    def __init__(self):
        super().__init__()
        self.start()

    def start(self):
        self.manager.start_events(max_pages=self.max_pages)
        self.encoders = [
            EventEncoder(self.manager, hashes="bytes"),
            EventEncoder(self.manager, hashes="bytes", wire="array"),
        ]
        shards, size = range(self.num_shards), self.manager.hash_page_size
        self.readers = [(Index(decode_map, size), Index(decode_array, size)) for _ in shards]
        self.indices = [PageIndex() for _ in shards]

    @rule()
    def take(self):
        events = self.manager.take_events()
        for shard, readers in enumerate(self.readers):
            own = [e for e in events if isinstance(e, PagesCleared) or e.shard == shard]
            for encoder, reader in zip(self.encoders, readers, strict=True):
                reader.read(encoder.encode(0, map(encoder.event, own), shard), shard)
                assert reader.keys.keys() == keys_of(self.manager, shard)
            for event in own:
                self.indices[shard].apply(event)

    @rule()
    def bootstrap(self):
        """A new subscriber is told all there is, parents first."""
        self.take()
        for index, (known, _) in zip(self.indices, self.readers, strict=True):
            events = list(index.events(self.encoders[0]))
            fresh = Index(hash_page_size=self.manager.hash_page_size)
            fresh.read(self.encoders[0].encode(0, events, 0))
            assert fresh.keys == known.keys
            assert len(index) == len(fresh.keys)
            seen = set()
            for event in events:
                parent = (event.group_idx, event.parent_block_hash)
                assert parent in seen or parent not in fresh.keys
                seen |= {(event.group_idx, name) for name in event.block_hashes}

    @rule()
    def restart(self):
        """Events that start late begin with all there is."""
        self.manager.stop_events()
        self.start()

    @rule(data=st.data())
    def restore(self, data):
        """Another manager with the same content has events that add up to the same keys."""
        other = CacheManager(
            self.num_pages,
            [CacheGroupSpec(spec) for spec in self.manager.kv_cache_specs],
            MAX_MODEL_LEN,
            data_parallel_size=self.num_shards,
        )
        if data.draw(st.booleans(), "before"):
            other.start_events()
        other.restore(self.manager.snapshot())
        if not other.has_events_on:
            other.start_events()
        events = other.take_events()
        for shard in range(self.num_shards):
            reader = Index()
            own = [e for e in events if e.shard == shard]
            encoder = self.encoders[0]
            reader.read(encoder.encode(0, map(encoder.event, own), 0))
            assert reader.keys.keys() == keys_of(self.manager, shard)

    @invariant()
    def is_sound(self):
        self.manager.check_invariants()

    def teardown(self):
        self.bootstrap()


MIXES = {
    "Full": (12, [Group("full", 3)], 1),
    "Window": (10, [Group("window", 3, 7)], 1),
    "Checkpoints": (10, [Group("checkpoints", 4)], 1),
    "FullWindow": (16, [Group("full", 3), Group("window", 3, 5)], 1),
    "FullShards": (24, [Group("full", 3)], 3),
    "EverythingShards": (
        80,
        [Group("window", 2, 5), Group("full", 4), Group("chunk", 1, 6), Group("checkpoints", 2)],
        2,
    ),
}

VARIANTS = {"Deduplicated": {"deduplicate": True}, "Lost": {"max_pages": 2}}

for _name, (_num_pages, _groups, _num_shards) in MIXES.items():
    _values = {"num_pages": _num_pages, "groups": _groups, "num_shards": _num_shards}
    _variants = {"": {}, **(VARIANTS if _name in ("FullWindow", "EverythingShards") else {})}
    for _suffix, _more in _variants.items():
        _machine = type(f"{_name}{_suffix}Events", (EventsMachine,), {**_values, **_more})
        globals()[f"Test{_name}{_suffix}"] = _machine.TestCase
