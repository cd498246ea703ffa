"""A subscriber in the plainest Python: decodes batches with structs of its own, and keeps an index.

It checks each stored page by hashing its tokens again, with hashlib and cbor2 alone.
"""

import hashlib
from typing import Any

import cbor2
import msgspec
import zmq
from pagedkv import none_hash

FIELDS = (
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
)


class Stored(msgspec.Struct, tag="BlockStored", forbid_unknown_fields=True):
    block_hashes: list[int | bytes]
    parent_block_hash: int | bytes | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[Any] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None


class Removed(msgspec.Struct, tag="BlockRemoved", forbid_unknown_fields=True):
    block_hashes: list[int | bytes]
    medium: str | None
    group_idx: int | None = None


class Cleared(msgspec.Struct, tag="AllBlocksCleared", forbid_unknown_fields=True):
    pass


class Batch(msgspec.Struct, array_like=True):
    ts: float
    events: list[Stored | Removed | Cleared]
    data_parallel_rank: int | None = None


def decode_map(payload):
    return msgspec.msgpack.decode(payload, type=Batch)


def decode_array(payload):
    """The older form, by position."""
    ts, events, rank = msgspec.msgpack.decode(payload)
    kinds = {"BlockStored": Stored, "BlockRemoved": Removed, "AllBlocksCleared": Cleared}
    return Batch(ts, [kinds[kind](*values) for kind, *values in events], rank)


def digest_of(parent, tokens, extra):
    message = cbor2.dumps((parent, tuple(tokens), extra), canonical=True)
    return hashlib.sha256(message).digest()


class Index:
    """(group, hash) of what can be found, as the events say."""

    def __init__(self, decode=decode_map, hash_page_size=None):
        self.hash_page_size = hash_page_size  # None: that of each event
        self.keys = {}  # with the parent
        self.num_checked = 0
        self.decode = decode

    def read(self, payload, rank=0):
        batch = self.decode(payload)
        assert batch.data_parallel_rank == rank
        for event in batch.events:
            if isinstance(event, Cleared):
                self.keys.clear()
            elif isinstance(event, Removed):
                for name in event.block_hashes:
                    del self.keys[event.group_idx, name]
            else:
                self.store(event)

    def store(self, event):
        parent, size = event.parent_block_hash, event.block_size
        assert len(event.token_ids) in (0, size * len(event.block_hashes))
        assert event.extra_keys is None or len(event.extra_keys) == len(event.block_hashes)
        for i, name in enumerate(event.block_hashes):
            assert (event.group_idx, name) not in self.keys
            self.keys[event.group_idx, name] = parent
            if event.token_ids and isinstance(name, bytes):
                extra = event.extra_keys and event.extra_keys[i]
                digest, step = (
                    none_hash() if parent is None else parent,
                    self.hash_page_size or size,
                )
                for begin in range(i * size, (i + 1) * size, step):
                    digest = digest_of(digest, event.token_ids[begin : begin + step], extra)
                assert name == digest
                self.num_checked += 1
            parent = name


def keys_of(manager, shard=0):
    """What the manager can find in a shard, by looking at each page of its pool."""
    pool, size = manager.page_pool, manager.num_pages // manager.data_parallel_size
    pages = range(shard * size, (shard + 1) * size)
    return {(group, digest) for digest, group in filter(None, map(pool.digest, pages))}


class Subscriber:
    """Follows a stream: live messages, and a replay from the first that is missing."""

    TIMEOUT_MS = 10_000

    def __init__(self, context, endpoint, replay_endpoint, topic=b"", decode=decode_map, rank=0):
        self.index = Index(decode)
        self.last = -1
        self.num_live = self.num_replayed = 0
        self.topic, self.rank = topic, rank
        self.live = context.socket(zmq.SUB)
        self.live.setsockopt(zmq.SUBSCRIBE, topic)
        self.live.connect(endpoint)
        self.replay = context.socket(zmq.DEALER)
        self.replay.connect(replay_endpoint)

    def listen(self, timeout_ms=0):
        """Reads the live messages that are there. Returns how many."""
        count = 0
        while self.live.poll(timeout_ms):
            topic, sequence, payload = self.live.recv_multipart()
            assert topic == self.topic
            number = int.from_bytes(sequence, "big")
            if number > self.last + 1:
                self.catch_up()
            if number == self.last + 1:
                self.read(number, payload)
                self.num_live += 1
            count += 1
            timeout_ms = 0
        return count

    def read(self, number, payload):
        self.index.read(payload, self.rank)
        self.last = number

    def ask(self, start):
        """Gives the messages of a replay."""
        self.replay.send_multipart((b"", start.to_bytes(8, "big")))
        messages = []
        while True:
            assert self.replay.poll(self.TIMEOUT_MS), "no answer"
            delimiter, *message = self.replay.recv_multipart()
            assert delimiter == b""
            *topic, sequence, payload = message
            if sequence == b"\xff" * 8:
                assert payload == b""
                assert topic in ([], [b""])
                return messages
            assert topic in ([], [self.topic])
            messages.append((int.from_bytes(sequence, "big"), payload))

    def catch_up(self):
        for number, payload in self.ask(self.last + 1):
            self.read(number, payload)
            self.num_replayed += 1

    def close(self):
        self.live.close(linger=0)
        self.replay.close(linger=0)
