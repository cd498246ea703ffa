"""Batches over ZeroMQ, and what subscribers make of them. Loopback only."""

import random
import time

import pytest
import zmq
from event_reader import Subscriber, decode_array, decode_map, keys_of
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request, Retention
from pagedkv.events import KVEventPublisher
from pagedkv.events.wire import EventEncoder

ENDPOINT = "tcp://127.0.0.1:*"
LAYOUT = (4, 1, 8, "bfloat16")


def make_manager(num_pages=32, **options):
    return CacheManager(
        num_pages, [CacheGroupSpec(FullAttentionSpec(*LAYOUT))], max_model_len=64, **options
    )


class Traffic:
    """Prompts that share prefixes, in a pool that is too small for all of them."""

    def __init__(self, manager, seed=0):
        self.manager, self.random, self.count = manager, random.Random(seed), 0

    def step(self, shard=None):
        tokens = [self.random.randrange(2) for _ in range(self.random.randrange(1, 40))]
        retention = Retention(priority=90) if self.random.random() < 0.3 else None
        self.count += 1
        request = Request(f"r{self.count}", tokens, retention=retention)
        cached = self.manager.match(request, dp_shard=shard)
        assert self.manager.allocate(
            request, len(tokens) - cached, num_cached_tokens=cached, dp_shard=shard
        )
        self.manager.commit(request, len(tokens))
        child = request.copy(f"c{self.count}")
        if self.random.random() < 0.3 and self.manager.fork(request, child) is not None:
            self.manager.free(child)
        self.manager.free(request)
        if self.random.random() < 0.03:
            assert self.manager.reset_prefix_cache()


@pytest.fixture
def context():
    with zmq.Context() as context:
        yield context


@pytest.fixture
def subscribe(context):
    subscribers = []

    def subscribe(publisher, rank=0, **options):
        subscriber = Subscriber(
            context,
            publisher.endpoints[rank],
            publisher.replay_endpoints[rank],
            rank=rank,
            **options,
        )
        subscribers.append(subscriber)
        return subscriber

    yield subscribe
    for subscriber in subscribers:
        subscriber.close()


def publish_until_live(publisher, traffic, subscriber):
    """Until the subscription has arrived, which takes a moment, live messages are missed."""
    for _ in range(200):
        traffic.step()
        publisher.publish()
        if subscriber.listen(50):
            return
    raise AssertionError("no live message in 10 s")


@pytest.mark.parametrize("wire", ["map", "array"])
@pytest.mark.parametrize("hashes", ["int", "bytes"])
def test_a_subscriber_knows_what_the_manager_can_find(subscribe, wire, hashes):
    manager = make_manager()
    with KVEventPublisher(
        manager, ENDPOINT, replay_endpoint=ENDPOINT, wire=wire, hashes=hashes, topic="kv@pod"
    ) as publisher:
        decode = {"map": decode_map, "array": decode_array}[wire]
        subscriber = subscribe(publisher, topic=b"kv@pod", decode=decode)
        traffic = Traffic(manager)
        publish_until_live(publisher, traffic, subscriber)
        for _ in range(200):
            traffic.step()
            publisher.publish()
            subscriber.listen()
        assert publisher.flush(10)
        subscriber.listen(200)
        subscriber.catch_up()
        assert subscriber.num_live > 0
        assert subscriber.last + 1 == publisher.num_batches
        known = keys_of(manager)
        if hashes == "int":
            known = {(group, int.from_bytes(digest[-8:], "big")) for group, digest in known}
        assert subscriber.index.keys.keys() == known
        assert manager.num_evictions > 100


def test_replay_serves_what_was_missed(subscribe):
    manager = make_manager()
    with KVEventPublisher(manager, ENDPOINT, replay_endpoint=ENDPOINT, hashes="bytes") as publisher:
        subscriber, traffic = subscribe(publisher), Traffic(manager, 1)
        for _ in range(50):
            traffic.step()
            publisher.publish()
        assert publisher.flush(10)
        total = publisher.num_batches
        assert [number for number, _ in subscriber.ask(0)] == list(range(total))
        assert [number for number, _ in subscriber.ask(total - 3)] == [
            total - 3,
            total - 2,
            total - 1,
        ]
        assert subscriber.ask(total) == []
        subscriber.catch_up()
        assert subscriber.index.keys.keys() == keys_of(manager)
        assert publisher.num_snapshots == 0
        assert publisher.num_replays == 4


@pytest.mark.parametrize("start", ["too late", "of another publisher"])
def test_a_snapshot_serves_what_the_buffer_has_not(subscribe, start):
    manager = make_manager()
    with KVEventPublisher(
        manager, ENDPOINT, replay_endpoint=ENDPOINT, hashes="bytes", buffer_steps=3
    ) as publisher:
        subscriber, traffic = subscribe(publisher), Traffic(manager, 2)
        for _ in range(40):
            traffic.step()
            publisher.publish()
        assert publisher.flush(10)
        last = publisher.num_batches - 1
        first = 0 if start == "too late" else last + 100
        ((number, payload),) = subscriber.ask(first)
        assert number == last
        subscriber.read(number, payload)
        assert subscriber.index.keys.keys() == keys_of(manager)
        assert subscriber.index.num_checked >= len(keys_of(manager)) > 0
        assert publisher.num_snapshots == 1
        for num_steps, num_snapshots in ((3, 1), (30, 2)):  # and then as everybody else
            for _ in range(num_steps):
                traffic.step()
                publisher.publish()
            assert publisher.flush(10)
            subscriber.catch_up()
            assert publisher.num_snapshots == num_snapshots
            assert subscriber.index.keys.keys() == keys_of(manager)


def test_without_snapshots_the_buffer_is_all_there_is(subscribe):
    manager = make_manager()
    with KVEventPublisher(
        manager, ENDPOINT, replay_endpoint=ENDPOINT, buffer_steps=2, snapshots=False
    ) as publisher:
        subscriber = subscribe(publisher)
        for i in range(5):
            request = Request("r", range(100 * i, 100 * i + 8))
            assert manager.allocate(request, 8)
            manager.commit(request, 8)
            manager.free(request)
            assert publisher.publish() == 1
        assert publisher.flush(10)
        assert [number for number, _ in subscriber.ask(0)] == [3, 4]
        assert [number for number, _ in subscriber.ask(4)] == [4]
        assert subscriber.ask(99) == []


def test_content_from_before_is_published_first(subscribe):
    manager = make_manager()
    Traffic(manager, 3).step()
    with KVEventPublisher(manager, ENDPOINT, replay_endpoint=ENDPOINT, hashes="bytes") as publisher:
        subscriber = subscribe(publisher)
        assert subscriber.ask(0) == []
        publisher.publish()
        assert publisher.flush(10)
        subscriber.catch_up()
        assert subscriber.index.keys.keys() == keys_of(manager)
    assert not manager.has_events_on


def test_each_shard_is_a_rank(subscribe):
    manager = make_manager(96, data_parallel_size=3)
    with KVEventPublisher(
        manager, ENDPOINT, replay_endpoint=ENDPOINT, hashes="bytes", buffer_steps=20
    ) as publisher:
        assert len(set(publisher.endpoints)) == len(set(publisher.replay_endpoints)) == 3
        subscribers = [subscribe(publisher, rank) for rank in range(3)]
        traffic = Traffic(manager, 4)
        for i in range(150):
            traffic.step(shard=i % 3)
            publisher.publish()
        assert publisher.flush(10)
        for shard, subscriber in enumerate(subscribers):
            subscriber.catch_up()
            assert subscriber.index.keys.keys() == keys_of(manager, shard) != set()


def test_what_the_queue_has_no_room_for_stays_with_the_manager(subscribe, monkeypatch):
    manager = make_manager()
    with KVEventPublisher(
        manager, ENDPOINT, replay_endpoint=ENDPOINT, hashes="bytes", max_queue_size=1
    ) as publisher:
        subscriber, traffic = subscribe(publisher), Traffic(manager, 5)
        put = publisher._put
        monkeypatch.setattr(publisher, "_put", publisher._queue.append)  # nobody is woken
        counts = []
        for _ in range(10):
            traffic.step()
            counts.append(publisher.publish())
        assert counts[0] > 0
        assert counts[1:] == [0] * 9
        monkeypatch.undo()
        put(publisher._queue.pop())
        assert publisher.flush(10)
        assert publisher.publish() > 0
        assert publisher.flush(10)
        subscriber.catch_up()
        assert subscriber.last == 1
        assert subscriber.index.keys.keys() == keys_of(manager)


def test_a_batch_that_cannot_be_sent_is_a_gap(subscribe, monkeypatch, caplog):
    manager = make_manager()
    with KVEventPublisher(manager, ENDPOINT, replay_endpoint=ENDPOINT, hashes="bytes") as publisher:
        subscriber, traffic = subscribe(publisher), Traffic(manager, 6)
        encode = EventEncoder.encode
        for is_broken in (False, False, True, False):
            if is_broken:
                subscriber.catch_up()
            monkeypatch.setattr(EventEncoder, "encode", None if is_broken else encode)
            traffic.step()
            publisher.publish()
            assert publisher.flush(10)
        assert "a message was lost" in caplog.text
        assert [number for number, _ in subscriber.ask(3)] == [3]
        assert publisher.num_snapshots == 0
        assert [number for number, _ in subscriber.ask(1)] == [3]
        subscriber.catch_up()
        assert publisher.num_snapshots == 2
        assert subscriber.index.keys.keys() == keys_of(manager)


def test_wrong_replay_requests_get_no_answer(context, caplog):
    with KVEventPublisher(make_manager(), ENDPOINT, replay_endpoint=ENDPOINT) as publisher:
        with context.socket(zmq.DEALER) as client:
            client.linger = 0
            client.connect(publisher.replay_endpoints[0])
            for message in ([b"", b"short"], [b"", b"x", b"12345678"], [b"odd", b"12345678"]):
                client.send_multipart(message)
            client.send_multipart([(0).to_bytes(8, "big")])  # right, without the empty frame
            assert client.poll(10_000)
            assert client.recv_multipart() == [b"", b"\xff" * 8, b""]
            assert not client.poll(50)
        assert caplog.text.count("not a replay request") == 3


def test_older_replays_have_no_topic(context):
    manager = make_manager()
    with KVEventPublisher(
        manager, ENDPOINT, replay_endpoint=ENDPOINT, topic="kv", replay_topic=False
    ) as publisher:
        Traffic(manager).step()
        publisher.publish()
        assert publisher.flush(10)
        with context.socket(zmq.DEALER) as client:
            client.linger = 0
            client.connect(publisher.replay_endpoints[0])
            client.send_multipart([b"", bytes(8)])
            assert client.poll(10_000)
            assert client.recv_multipart()[:2] == [b"", bytes(8)]
            assert client.recv_multipart() == [b"", b"\xff" * 8, b""]


def test_the_publisher_may_connect(context):
    """As in vLLM, an endpoint without a star is somebody else's to bind."""
    manager = make_manager()
    with context.socket(zmq.SUB) as hub:
        hub.linger = 0
        hub.setsockopt(zmq.SUBSCRIBE, b"")
        port = hub.bind_to_random_port("tcp://127.0.0.1")
        with KVEventPublisher(manager, f"tcp://127.0.0.1:{port}") as publisher:
            assert publisher.replay_endpoints == []
            traffic = Traffic(manager)
            for _ in range(200):
                traffic.step()
                publisher.publish()
                if hub.poll(50):
                    break
            topic, sequence, payload = hub.recv_multipart()
            assert topic == b""
            assert len(sequence) == 8
            assert decode_map(payload).ts == pytest.approx(time.time(), abs=60)


def test_inproc_endpoints_are_in_the_context_that_was_given(context, subscribe):
    manager = make_manager(data_parallel_size=2)
    with KVEventPublisher(
        manager, "inproc://kv", replay_endpoint="inproc://replay", hashes="bytes", context=context
    ) as publisher:
        assert publisher.endpoints == ["inproc://kv", "inproc://kv_dp1"]
        subscriber = subscribe(publisher, rank=1)
        traffic = Traffic(manager)
        for _ in range(3000):  # more than a queue of ZeroMQ's holds by default
            traffic.step(shard=1)
            publisher.publish()
        assert publisher.flush(30)
        subscriber.catch_up()
        assert subscriber.index.keys.keys() == keys_of(manager, 1) != set()
    assert not context.closed


def test_an_endpoint_in_use_is_refused_and_leaves_nothing():
    manager = make_manager()
    with KVEventPublisher(manager, ENDPOINT) as publisher:
        with pytest.raises(zmq.ZMQError):
            KVEventPublisher(manager, publisher.endpoints[0], bind=True)
        assert manager.has_events_on
    assert not manager.has_events_on


def test_closed_means_closed():
    manager = make_manager()
    manager.start_events()
    publisher = KVEventPublisher(manager, ENDPOINT)
    assert publisher.publish() == 0
    publisher.close()
    publisher.close()
    assert manager.has_events_on  # they were before
    for call in (publisher.publish, publisher.flush):
        with pytest.raises(RuntimeError, match="the publisher is closed"):
            call()


@pytest.mark.parametrize("name", ["buffer_steps", "hwm", "max_queue_size"])
def test_sizes_are_checked(name):
    manager = make_manager()
    with pytest.raises(ValueError, match=rf"\[KVEventPublisher\] {name} must be at least 1, got 0"):
        KVEventPublisher(manager, ENDPOINT, **{name: 0})
    with pytest.raises(ValueError, match="data_parallel_rank must be at least 0, got -1"):
        KVEventPublisher(manager, ENDPOINT, data_parallel_rank=-1)
    assert not manager.has_events_on
