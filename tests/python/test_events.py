"""Typed events of a manager, and their bytes."""

import hashlib

import msgspec
import numpy as np
import pytest
from event_reader import FIELDS, Index, decode_array, keys_of
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    ChunkedLocalAttentionSpec,
    CrossAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    MultimodalItem,
    PagesCleared,
    PagesRemoved,
    PagesStored,
    Request,
    Retention,
    RetentionRange,
    SinkFullAttentionSpec,
    SlidingWindowSpec,
    hashing,
)
from pagedkv.events import BlockRemoved, EventEncoder
from pagedkv.events.index import PageIndex
from pagedkv.events.publisher import rank_endpoint
from pagedkv.events.wire import kind_of

LAYOUT = (4, 1, 8, "bfloat16")


def make(num_pages=8, specs=None, **options):
    groups = [CacheGroupSpec(spec) for spec in specs or [FullAttentionSpec(*LAYOUT)]]
    manager = CacheManager(num_pages, groups, max_model_len=64, **options)
    manager.start_events()
    return manager


def serve(manager, request):
    assert manager.allocate(
        request, request.num_tokens - (n := manager.match(request)), num_cached_tokens=n
    )
    manager.commit(request, request.num_tokens)
    manager.free(request)


def test_events_of_a_life():
    manager = make()
    request = Request("a", range(10))
    serve(manager, request)
    (stored,) = manager.take_events()
    assert isinstance(stored, PagesStored)
    assert (stored.num_pages, stored.group, stored.shard, stored.page_size) == (2, 0, 0, 4)
    assert stored.parent_digest is None
    assert stored.lora_name is None
    assert stored.extra_keys is None
    assert stored.tokens.dtype == np.int32
    assert stored.tokens.tolist() == list(range(8))
    assert [bytes(d) for d in stored.digests] == [request.page_hash(0), request.page_hash(1)]
    assert manager.take_events() == []

    serve(manager, Request("b", range(13)))
    (stored,) = manager.take_events()
    assert stored.num_pages == 1
    assert stored.parent_digest == request.page_hash(1)

    serve(manager, Request("c", range(100, 128)))
    removed, stored = manager.take_events()
    assert isinstance(removed, PagesRemoved)
    assert [bytes(d) for d in removed.digests][1:] == [request.page_hash(1), request.page_hash(0)]
    assert stored.num_pages == 7

    assert manager.reset_prefix_cache()
    (cleared,) = manager.take_events()
    assert isinstance(cleared, PagesCleared)


def test_events_outlive_their_manager():
    manager = make()
    serve(manager, Request("a", range(8)))
    (stored,) = manager.take_events()
    del manager
    assert stored.tokens.tolist() == list(range(8))
    assert "num_pages=2" in repr(stored)


def test_extra_keys_name_what_was_hashed():
    embeds = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4)
    request = Request(
        "a",
        range(12),
        lora=("adapter", "/path"),
        mm_items=[MultimodalItem("image", 3, 4)],
        cache_salt="sa\0lt",
        prompt_embeds=hashing.prompt_embeds(embeds, page_size=4),
    )
    manager = make()
    serve(manager, request)
    (stored,) = manager.take_events()
    assert stored.lora_name == "adapter"
    lora = ("lora", "adapter", "/path")
    embeds_of = [
        ("prompt_embeds", hashlib.sha256(rows.tobytes()).digest())
        for rows in (embeds[:4], embeds[4:], embeds[:0])
    ]
    assert stored.extra_keys == [
        (lora, ("mm", "image", 3), ("cache_salt", "sa\0lt"), embeds_of[0]),
        (lora, ("mm", "image", -1), embeds_of[1]),
        (lora, embeds_of[2]),
    ]
    # The reader hashes them again.
    encoder, reader = EventEncoder(manager, hashes="bytes"), Index()
    reader.read(encoder.encode(0, [encoder.event(stored)], 0))
    assert reader.num_checked == 3
    assert reader.keys.keys() == keys_of(manager)


def test_pages_without_extra_keys_have_none():
    manager = make()
    serve(manager, Request("a", range(12), cache_salt="salt"))
    (stored,) = manager.take_events()
    assert stored.extra_keys == [(("cache_salt", "salt"),), None, None]


@pytest.mark.parametrize("algorithm", ["sha256_cbor", "xxh3_128_cbor", "pagedkv"])
def test_digests_are_as_long_as_the_algorithm_gives(algorithm):
    from pagedkv import hash_algorithms

    if algorithm not in hash_algorithms():
        algorithm = next(a for a in hash_algorithms() if a.startswith(algorithm[:3]))
    manager = make(hash_algorithm=algorithm)
    request = Request("a", range(8))
    serve(manager, request)
    (stored,) = manager.take_events()
    assert bytes(stored.digests[0]) == request.page_hash(0)
    wire = EventEncoder(manager).event(stored)
    low = int.from_bytes(request.page_hash(1), "big") & (2**64 - 1)
    assert wire.block_hashes[1] == low


def test_bytes_of_vllm():
    """Golden: vLLM 0.33's own structs encode this batch so."""
    encoder = EventEncoder(make())
    payload = encoder.encode(
        1.5, [BlockRemoved(block_hashes=[7], medium="GPU", group_idx=0), encoder.cleared()], 0
    )
    assert payload == bytes.fromhex(
        "93 cb3ff8000000000000 92"
        "84 a474797065 ac426c6f636b52656d6f766564 ac626c6f636b5f686173686573 9107"
        "a66d656469756d a3475055 a967726f75705f696478 00"
        "81 a474797065 b0416c6c426c6f636b73436c6561726564"
        "00"
    )


def test_fields_of_a_stored_event_in_both_formats():
    manager = make(specs=[SlidingWindowSpec(*LAYOUT, sliding_window=9)])
    request = Request("a", range(8), lora=("adapter", "/path"))
    serve(manager, request)
    (stored,) = manager.take_events()
    names = [int.from_bytes(request.page_hash(i)[-8:], "big") for i in range(2)]
    lora = ["lora", "adapter", "/path"]
    values = [
        names,
        None,
        [*range(8)],
        4,
        None,
        "GPU",
        "adapter",
        [[lora], [lora]],
        0,
        "sliding_window",
        9,
    ]
    encoder = EventEncoder(manager)
    batch = msgspec.msgpack.decode(encoder.encode(2.0, [encoder.event(stored)], 3))
    fields = {"type": "BlockStored", **dict(zip(FIELDS, values, strict=True))}
    assert batch == [2.0, [fields], 3]
    assert list(batch[1][0]) == list(fields)
    encoder = EventEncoder(manager, wire="array", medium="CPU")
    values[5] = "CPU"
    payload = encoder.encode(2.0, [encoder.event(stored)], None)
    assert msgspec.msgpack.decode(payload) == [2.0, [["BlockStored", *values]], None]
    assert decode_array(payload).events[0].lora_name == "adapter"


def test_fields_with_their_default_are_left_out_of_maps():
    manager = make()
    serve(manager, Request("a", range(4)))
    encoder = EventEncoder(manager, hashes="bytes")
    payload = encoder.encode(0, map(encoder.event, manager.take_events()), 0)
    (event,) = msgspec.msgpack.decode(payload)[1]
    assert "extra_keys" not in event
    assert "kv_cache_spec_sliding_window" not in event
    assert event["parent_block_hash"] is None
    assert event["lora_id"] is None
    assert len(event["block_hashes"][0]) == 32


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (FullAttentionSpec(*LAYOUT), "full_attention"),
        (FullAttentionSpec(*LAYOUT, use_mla=True), "mla_attention"),
        (SinkFullAttentionSpec(*LAYOUT, sink_len=4), "sink_full_attention"),
        (SlidingWindowSpec(*LAYOUT, sliding_window=5), "sliding_window"),
        (ChunkedLocalAttentionSpec(*LAYOUT, attention_chunk_size=8), "chunked_local_attention"),
        (CrossAttentionSpec(*LAYOUT), "cross_attention"),
        (MambaSpec(4, [(2, 8)], "float32"), "mamba"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds_are_vllms_words(spec, kind):
    assert kind_of(spec) == (kind, 5 if kind == "sliding_window" else None)
    assert make(specs=[spec]).kv_cache_specs == [spec]


def test_restored_content_has_no_tokens():
    before = make()
    serve(before, Request("a", range(8)))
    after = make()
    after.restore(before.snapshot())
    events = after.take_events()
    assert [(e.num_pages, e.page_size, e.tokens.size, e.parent_digest) for e in events] == [
        (1, 0, 0, None)
    ] * 2
    encoder = EventEncoder(after)
    assert {encoder.event(e).block_size for e in events} == {4}
    assert encoder.event(events[0]).token_ids == []


def test_a_new_subscriber_hears_of_parents_first():
    """Also where a page was evicted before the one after it, and computed again."""
    manager = make()
    first, last = RetentionRange(0, 4, priority=0), RetentionRange(4, 12, priority=90)
    for _ in range(2):
        serve(manager, Request("a", range(8), retention=Retention(ranges=[first, last])))
        serve(manager, Request("b", range(100, 120)))  # evicts the first page of "a"
    serve(manager, Request("c", [*range(4), *range(50, 58)]))
    index, encoder = PageIndex(), EventEncoder(manager, hashes="bytes")
    for event in manager.take_events():
        index.apply(event)
    known, keys = set(), keys_of(manager)
    branches = 0
    for event in index.events(encoder):
        parent = (0, event.parent_block_hash)
        assert parent in known or parent not in keys
        branches += parent in known
        known |= {(0, name) for name in event.block_hashes}
    assert known == keys
    assert branches == 1


def test_more_than_max_pages_begins_anew():
    groups = [CacheGroupSpec(FullAttentionSpec(*LAYOUT))]
    manager = CacheManager(8, groups, max_model_len=64)
    manager.start_events(max_pages=2)
    serve(manager, Request("a", range(12)))
    cleared, *stored = manager.take_events()
    assert isinstance(cleared, PagesCleared)
    assert [event.num_pages for event in stored] == [1, 1, 1]
    serve(manager, Request("b", range(100, 108)))
    (event,) = manager.take_events()
    assert event.tokens.size == 8


def test_events_are_on_or_off():
    manager = CacheManager(8, [CacheGroupSpec(FullAttentionSpec(*LAYOUT))], max_model_len=64)
    assert not manager.has_events_on
    with pytest.raises(ValueError, match=r"take_events\] events are off"):
        manager.take_events()
    with pytest.raises(ValueError, match=r"start_events\] max_pages must be >= 1, got 0"):
        manager.start_events(max_pages=0)
    serve(manager, Request("a", range(8)))
    manager.start_events()
    assert [event.num_pages for event in manager.take_events()] == [1, 1]
    with pytest.raises(ValueError, match=r"start_events\] events are on already"):
        manager.start_events()
    manager.stop_events()
    with pytest.raises(ValueError, match=r"stop_events\] events are off"):
        manager.stop_events()


def test_bad_words_are_refused():
    manager = make()
    with pytest.raises(ValueError, match=r"\[EventEncoder\] hashes must be int or bytes, got hex"):
        EventEncoder(manager, hashes="hex")
    with pytest.raises(ValueError, match=r"\[EventEncoder\] wire must be map or array, got json"):
        EventEncoder(manager, wire="json")
    with pytest.raises(TypeError, match="not an event"):
        EventEncoder(manager).event(7)


def test_endpoints_count_up():
    assert rank_endpoint("tcp://*:5557", 0) == "tcp://*:5557"
    assert rank_endpoint("tcp://*:5557", 2) == "tcp://*:5559"
    assert rank_endpoint("tcp://[::1]:5557", 1) == "tcp://[::1]:5558"
    assert rank_endpoint("tcp://127.0.0.1:*", 1) == "tcp://127.0.0.1:*"
    assert rank_endpoint("inproc://cache", 1) == "inproc://cache_dp1"
    for endpoint in ("ipc:///tmp/x", "tcp://host"):
        with pytest.raises(ValueError, match="must be tcp with a port, or inproc"):
            rank_endpoint(endpoint, 1)
