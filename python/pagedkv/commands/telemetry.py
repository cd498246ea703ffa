"""What `pagedkv generate` tells others while it runs: KV events over ZeroMQ, and Prometheus metrics."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagedkv.serving.engine import Engine

from .console import console

if TYPE_CHECKING:
    from pagedkv.events import KVEventPublisher

_MAX_PORT = 65535


@dataclass(frozen=True)
class Telemetry:
    """Where an engine is to be followed.

    Attributes:
      events: Endpoint of the PUB socket, which is bound; None for no events.
      events_replay: Endpoint of the ROUTER socket that serves missed batches again; None for none.
      metrics_port: Port of 127.0.0.1, 0 for any free one; None for no metrics.
    """

    events: str | None = None
    events_replay: str | None = None
    metrics_port: int | None = None

    def check(self) -> None:
        """Finds out what it can before a model is loaded.

        Raises:
          ValueError: If a port is out of range.
          ImportError: If a module is not installed.
        """
        for option, endpoint in (("events", self.events), ("events-replay", self.events_replay)):
            port = (endpoint or "").rpartition(":")[2]
            if port.isdecimal() and int(port) > _MAX_PORT:  # ZeroMQ takes it modulo 65536
                raise ValueError(f"--{option} {endpoint}: a port must be at most {_MAX_PORT}")
        if self.metrics_port is not None and not 0 <= self.metrics_port <= _MAX_PORT:
            raise ValueError(f"--metrics-port must be in [0, {_MAX_PORT}], got {self.metrics_port}")
        if self.events is not None:
            importlib.import_module("pagedkv.events")
        if self.metrics_port is not None:
            importlib.import_module("pagedkv.metrics")

    @contextmanager
    def follow(self, engine: Engine) -> Iterator[Callable[[], None]]:
        """Lets an engine be followed; the function it gives is to be called after each step.

        Raises:
          ValueError: If an endpoint or the port cannot be bound.
        """
        with ExitStack() as stack:
            publisher = None
            if self.events is not None:
                publisher = stack.enter_context(_publisher(engine, self.events, self.events_replay))
            if self.metrics_port is not None:
                stack.enter_context(_metrics(engine, publisher, self.metrics_port))

            def after_step() -> None:
                if publisher is not None:
                    publisher.publish()

            yield after_step


def _publisher(engine: Engine, endpoint: str, replay_endpoint: str | None) -> "KVEventPublisher":
    import zmq

    from pagedkv.events import KVEventPublisher

    try:
        publisher = KVEventPublisher(
            engine.manager, endpoint, replay_endpoint=replay_endpoint, bind=True
        )
    except zmq.ZMQError as error:
        raise ValueError(f"--events: {error}") from error
    replays = "".join(f", replays at {place}" for place in publisher.replay_endpoints)
    console.print(f"KV events at {publisher.endpoints[0]}{replays}", markup=False, soft_wrap=True)
    return publisher


@contextmanager
def _metrics(engine: Engine, publisher: "KVEventPublisher | None", port: int) -> Iterator[None]:
    from prometheus_client import CollectorRegistry, start_http_server

    from pagedkv.metrics import PrometheusCollector

    registry = CollectorRegistry()
    registry.register(
        PrometheusCollector(engine.manager, scheduler=engine.scheduler, publisher=publisher)
    )
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ValueError(f"--metrics-port {port}: {error.strerror}") from error
    console.print(f"Metrics at http://127.0.0.1:{server.server_port}/metrics", soft_wrap=True)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
