"""Publishes the events of a manager over ZeroMQ, as vLLM's `ZmqEventPublisher` does.

Frames, sequence numbers, replay and the rules for endpoints are those of vLLM 0.33
(`vllm/distributed/kv_events.py`). Ours is what comes of a replay that is too late for the buffer: the
whole content of the cache, so that a subscriber may come at any time.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Self

import zmq

from pagedkv import CacheManager, PagesCleared

from .index import PageIndex
from .wire import EventEncoder, HashForm, PageEvent, WireFormat

_log = logging.getLogger(__name__)

_END = (-1).to_bytes(8, "big", signed=True)  # after the last batch of a replay


class KVEventPublisher:
    """Tells subscribers which pages the cache of a manager has.

    `publish` after each step hands the events to a thread, which encodes and sends them. Each shard
    of the manager is a data-parallel rank with sockets of its own: ports count up from those given, and
    inproc endpoints get ``_dp<rank>`` after their name.

    Args:
      manager: Its events are started, and stopped again by `close`, if they are not on already.
      endpoint: Of the PUB socket. Bound if it has ``*`` or ``::`` in it or is ipc or inproc, else
        connected to, unless ``bind`` says which.
      replay_endpoint: Of a ROUTER socket, bound, that serves batches again; None for none.
      topic: First frame of each message.
      hashes: "int" or "bytes": see `EventEncoder`.
      wire: "map" or "array": see `EventEncoder`.
      medium: Where the pages are.
      data_parallel_rank: Of the manager's first shard.
      buffer_steps: Batches that are kept for replay.
      hwm: Messages that wait for a slow subscriber; further ones it misses.
      max_queue_size: Batches that wait for the thread. If there are as many, `publish` leaves the events
        with the manager.
      replay_topic: Whether replayed messages begin with the topic, as those of vLLM 0.33 do and of older
        versions do not; None: as ``wire``, yes for "map".
      snapshots: Serve replays that are too late for the buffer from an index of what the cache has,
        which takes some 400 bytes a page and follows each event. If not, they get what the buffer has.
      bind: Whether to bind ``endpoint``; None: by the rule above.
      clock: Gives seconds since the epoch, for the batches' ``ts``.
      context: Of the sockets, for inproc endpoints; None for one of its own.

    Raises:
      ValueError: If an argument is out of range.
      zmq.ZMQError: If an endpoint cannot be bound or connected to.
    """

    def __init__(
        self,
        manager: CacheManager,
        endpoint: str = "tcp://*:5557",
        *,
        replay_endpoint: str | None = None,
        topic: str = "",
        hashes: HashForm = "int",
        wire: WireFormat = "map",
        medium: str | None = "GPU",
        data_parallel_rank: int = 0,
        buffer_steps: int = 10_000,
        hwm: int = 100_000,
        max_queue_size: int = 100_000,
        replay_topic: bool | None = None,
        snapshots: bool = True,
        bind: bool | None = None,
        clock: Callable[[], float] = time.time,
        context: Any = None,
    ) -> None:
        for name, value, least in (
            ("data_parallel_rank", data_parallel_rank, 0),
            ("buffer_steps", buffer_steps, 1),
            ("hwm", hwm, 1),
            ("max_queue_size", max_queue_size, 1),
        ):
            if value < least:
                raise ValueError(f"[KVEventPublisher] {name} must be at least {least}, got {value}")
        self._manager = manager
        self._encoder = EventEncoder(manager, hashes=hashes, wire=wire, medium=medium)
        self._clock = clock
        self._max_queue_size = max_queue_size
        self._queue: deque[tuple[float, list[PageEvent]] | threading.Event] = deque()
        self._lock = threading.Lock()
        self._is_closed = False
        self.num_batches = 0  # sent so far, of all ranks
        self.num_events = 0

        self._context = context or zmq.Context()
        self._has_own_context = context is None
        self._sockets: list[Any] = []
        self._ranks: list[_Rank] = []
        try:
            for rank in range(manager.data_parallel_size):
                sockets = self._open(
                    rank_endpoint(endpoint, data_parallel_rank + rank),
                    replay_endpoint and rank_endpoint(replay_endpoint, data_parallel_rank + rank),
                    bind=bind,
                    hwm=hwm,
                    replay_hwm=2 * (buffer_steps + 1),
                )
                with_topic = wire == "map" if replay_topic is None else replay_topic
                self._ranks.append(
                    _Rank(
                        data_parallel_rank + rank,
                        *sockets,
                        self._encoder,
                        topic.encode(),
                        buffer_steps,
                        (topic.encode(),) if with_topic else (),
                        PageIndex() if snapshots else None,
                        clock,
                    )
                )
            self._wake, self._woken = (self._socket(zmq.PAIR, 0) for _ in range(2))
            self._woken.bind(f"inproc://pagedkv-wake-{id(self)}")
            self._wake.connect(f"inproc://pagedkv-wake-{id(self)}")
            self._has_started_events = not manager.has_events_on
            if self._has_started_events:
                manager.start_events()
        except BaseException:
            self._close_sockets(linger=0)
            raise
        self._thread = threading.Thread(target=self._run, name="pagedkv-events", daemon=True)
        self._thread.start()

    @property
    def endpoints(self) -> list[str]:
        """Where the PUB sockets are, one a rank: with the port that the system chose, if it did."""
        return [rank.endpoint for rank in self._ranks]

    @property
    def replay_endpoints(self) -> list[str]:
        """Where the ROUTER sockets are, one a rank; none without ``replay_endpoint``."""
        return [rank.replay_endpoint for rank in self._ranks if rank.replay_endpoint]

    @property
    def num_replays(self) -> int:
        """Replays that were served from the buffer."""
        return sum(rank.num_replays for rank in self._ranks)

    @property
    def num_snapshots(self) -> int:
        """Replays that were too late for the buffer, and got all that the cache has."""
        return sum(rank.num_snapshots for rank in self._ranks)

    def publish(self) -> int:
        """Takes what has happened since the last call, and sends it. Call it after each step.

        Returns:
          The number of events; 0 if nothing happened, or too many batches wait to be sent.

        Raises:
          RuntimeError: If the publisher is closed.
          ValueError: If the manager has another number of shards now than ranks.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError("[KVEventPublisher.publish] the publisher is closed")
            if self._manager.data_parallel_size != len(self._ranks):
                raise ValueError(
                    f"[KVEventPublisher.publish] the manager has {self._manager.data_parallel_size} "
                    f"shards now, there are {len(self._ranks)} ranks: make a new publisher"
                )
            if len(self._queue) >= self._max_queue_size:
                return 0
            events = self._manager.take_events()
            if events:
                self._put((self._clock(), events))
            return len(events)

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all that was published is handed to ZeroMQ.

        Args:
          timeout: Most seconds to wait; None for no limit.

        Returns:
          Whether it is.

        Raises:
          RuntimeError: If the publisher is closed.
        """
        done = threading.Event()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("[KVEventPublisher.flush] the publisher is closed")
            self._put(done)
        return done.wait(timeout)

    def close(self) -> None:
        """Sends what was published, and closes the sockets. May be called again."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._wake.send(b"")
        self._thread.join()
        self._close_sockets(linger=1000)
        if self._has_started_events and self._manager.has_events_on:
            self._manager.stop_events()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _socket(self, kind: int, hwm: int) -> Any:
        socket = self._context.socket(kind)
        self._sockets.append(socket)
        socket.set_hwm(hwm)
        return socket

    def _open(
        self,
        endpoint: str,
        replay_endpoint: str | None,
        *,
        bind: bool | None,
        hwm: int,
        replay_hwm: int,
    ) -> tuple[Any, Any]:
        if bind is None:
            bind = "*" in endpoint or "::" in endpoint
            bind = bind or endpoint.startswith(("ipc://", "inproc://"))
        pub = self._socket(zmq.PUB, hwm)
        if bind:
            pub.bind(endpoint)
        else:
            pub.connect(endpoint)
        if replay_endpoint is None:
            return pub, None
        replay = self._socket(zmq.ROUTER, replay_hwm)
        replay.bind(replay_endpoint)
        return pub, replay

    def _close_sockets(self, linger: int) -> None:
        for socket in self._sockets:
            socket.close(linger=linger)
        if self._has_own_context:
            self._context.term()

    def _put(self, item: Any) -> None:
        self._queue.append(item)
        self._wake.send(b"")

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._woken, zmq.POLLIN)
        for rank in self._ranks:
            if rank.replay is not None:
                poller.register(rank.replay, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            for rank in self._ranks:
                if rank.replay in ready:
                    _guarded(rank.answer)
            if self._woken in ready:
                self._woken.recv()
                if self._queue:
                    self._send(self._queue.popleft())
                elif self._is_closed:
                    return

    def _send(self, item: tuple[float, list[PageEvent]] | threading.Event) -> None:
        if isinstance(item, threading.Event):
            item.set()
            return
        ts, events = item
        for shard, rank in enumerate(self._ranks):
            own = [e for e in events if isinstance(e, PagesCleared) or e.shard == shard]
            if own and _guarded(rank.send, ts, own):
                self.num_batches += 1
                self.num_events += len(own)


class _Rank:
    """The stream of one shard: its sockets, what was sent last, and what its cache has."""

    def __init__(
        self,
        number: int,
        pub: Any,
        replay: Any,
        encoder: EventEncoder,
        topic: bytes,
        buffer_steps: int,
        replay_topic: tuple[bytes, ...],
        index: PageIndex | None,
        clock: Callable[[], float],
    ) -> None:
        self.replay = replay
        self.endpoint = pub.getsockopt_string(zmq.LAST_ENDPOINT)
        self.replay_endpoint = replay and replay.getsockopt_string(zmq.LAST_ENDPOINT)
        self.num_replays = 0
        self.num_snapshots = 0
        self._number = number
        self._pub = pub
        self._encoder = encoder
        self._topic = topic
        self._replay_topic = replay_topic
        self._index = index
        self._clock = clock
        self._buffer = deque[bytes](maxlen=buffer_steps)  # of the batches before `_next`
        self._next = 0

    def send(self, ts: float, events: list[PageEvent]) -> None:
        if self._index is not None:
            for event in events:
                self._index.apply(event)
        sequence, self._next = self._next, self._next + 1
        try:
            payload = self._encoder.encode(ts, map(self._encoder.event, events), self._number)
        except Exception:
            self._buffer.clear()  # a gap, which no replay may hide
            raise
        self._buffer.append(payload)
        self._pub.send_multipart((self._topic, sequence.to_bytes(8, "big"), payload))

    def answer(self) -> None:
        """Answers a request for the batches from a sequence number on."""
        frames = self.replay.recv_multipart()
        client, *delimiter, start = frames
        if delimiter not in ([], [b""]) or len(start) != 8:
            _log.warning("[KVEventPublisher] not a replay request: %s", frames)
            return
        for sequence, payload in self._batches_from(int.from_bytes(start, "big")):
            message = (*self._replay_topic, sequence.to_bytes(8, "big"), payload)
            self.replay.send_multipart((client, *delimiter, *message))
        topic = (b"",) if self._replay_topic else ()
        self.replay.send_multipart((client, *delimiter, *topic, _END, b""))

    def _batches_from(self, start: int) -> list[tuple[int, bytes]]:
        oldest = self._next - len(self._buffer)
        if oldest <= start <= self._next or self._index is None:
            self.num_replays += 1
            first = max(start, oldest)
            return list(enumerate(islice(self._buffer, first - oldest, None), first))
        if self._next == 0:
            return []
        self.num_snapshots += 1
        events = [self._encoder.cleared(), *self._index.events(self._encoder)]
        payload = self._encoder.encode(self._clock(), events, self._number)
        return [(self._next - 1, payload)]


def rank_endpoint(endpoint: str, rank: int) -> str:
    """The endpoint of a data-parallel rank: as vLLM counts up ports and names.

    Raises:
      ValueError: If the endpoint is neither tcp with a port nor inproc, and ``rank`` is not 0.
    """
    if rank == 0:
        return endpoint
    if endpoint.startswith("inproc://"):
        return f"{endpoint}_dp{rank}"
    address, _, port = endpoint.rpartition(":")
    if endpoint.startswith("tcp://") and port == "*":
        return endpoint
    if not endpoint.startswith("tcp://") or not port.isdecimal():
        raise ValueError(
            f"[KVEventPublisher] with more than one rank an endpoint must be tcp with a port, "
            f"or inproc, got {endpoint}"
        )
    return f"{address}:{int(port) + rank}"


def _guarded(work: Callable[..., None], *arguments: object) -> bool:
    """Does ``work``, whatever it raises: the thread must go on. Returns whether it succeeded."""
    try:
        work(*arguments)
    except Exception:  # noqa: BLE001
        _log.exception("[KVEventPublisher] a message was lost")
        return False
    return True
