"""What a manager counts, for Prometheus (docs/metrics.md has a table of all).

    registry.register(PrometheusCollector(manager))

Needs prometheus_client: ``pip install pagedkv[metrics]``.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pagedkv import CacheManager, Histogram, ManagerStats

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise ImportError(
        "[pagedkv.metrics] needs prometheus_client: pip install 'pagedkv[metrics]'"
    ) from error

if TYPE_CHECKING:
    from pagedkv.events import KVEventPublisher
    from pagedkv.serving.scheduler import Scheduler

# Of vLLM's histograms of the same things.
DEFAULT_BOUNDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800),
)

_COUNTERS = (
    ("prefix_cache_query_tokens", "num_query_tokens", "Tokens of requests that were let in."),
    ("prefix_cache_hit_tokens", "num_hit_tokens", "Tokens of those found in the prefix cache."),
    ("requests_admitted", "num_admitted", "Times that a request was given its first pages."),
    ("pages_allocated", "num_pages_allocated", "Times that a free page was handed out empty."),
    ("pages_reused", "num_pages_reused", "Times that a free page was held for what it contains."),
    ("pages_freed", "num_pages_freed", "Times that the last holder gave a page back."),
    ("pages_cached", "num_pages_cached", "Times that a page was made findable."),
    ("pages_evicted", "num_pages_evicted", "Times that a page lost its content for another."),
    ("allocation_failures", "num_failed_allocations", "Times that too few pages were free."),
)

_HISTOGRAMS = (
    ("page_lifetime_seconds", "lifetime", "From a page's allocation to its eviction."),
    (
        "page_idle_before_eviction_seconds",
        "idle",
        "From the last use of an evicted page to its eviction.",
    ),
    ("page_reuse_gap_seconds", "reuse_gap", "From one use of a page to the next."),
)


def start_residency(
    manager: CacheManager, *, sample_rate: float = 0.01, ticks_per_second: float = 1000
) -> None:
    """Measures how long pages keep their content, in buckets as vLLM's.

    Args:
      manager: Whoever drives it tells it the time with ``advance_time``.
      sample_rate: Share of the pages to watch, more than 0 and at most 1.
      ticks_per_second: The unit of ``advance_time``: 1000 for milliseconds.

    Raises:
      ValueError: If an argument is out of range, or pages are measured already.
    """
    if not ticks_per_second > 0:
        raise ValueError(f"[start_residency] ticks_per_second must be > 0, got {ticks_per_second}")
    bounds = sorted({round(bound * ticks_per_second) for bound in DEFAULT_BOUNDS})
    manager.start_residency(sample_rate=sample_rate, bounds=bounds)


class PrometheusCollector(Collector):
    """A collector for a registry of ``prometheus_client``. Reads counters when it is scraped.

    A scrape may come in any thread: it changes nothing, and takes some microseconds.

    Args:
      manager: What is counted.
      scheduler: Its queues and preemptions are exported too.
      publisher: What it has sent is exported too.
      labels: Names and values that each sample is to have, such as ``{"model": "gemma3"}``.
      ticks_per_second: The unit of ``manager.advance_time``, for the histograms of `start_residency`.

    Raises:
      ValueError: If ``ticks_per_second`` is not above 0.
    """

    def __init__(
        self,
        manager: CacheManager,
        *,
        scheduler: "Scheduler | None" = None,
        publisher: "KVEventPublisher | None" = None,
        labels: Mapping[str, str] | None = None,
        ticks_per_second: float = 1000,
    ) -> None:
        if not ticks_per_second > 0:
            raise ValueError(
                f"[PrometheusCollector] ticks_per_second must be > 0, got {ticks_per_second}"
            )
        self._manager = manager
        self._scheduler = scheduler
        self._publisher = publisher
        self._names = list(labels or {})
        self._values = list((labels or {}).values())
        self._ticks_per_second = ticks_per_second

    def collect(self) -> Iterator[Metric]:
        stats = self._manager.stats()
        yield from self._pages(stats)
        for name, attribute, text in _COUNTERS:
            yield self._counter(name, text, getattr(stats, attribute))
        yield from self._residency()
        if self._scheduler is not None:
            yield from self._queues(self._scheduler)
        if self._publisher is not None:
            yield from self._events(self._publisher)

    def _pages(self, stats: ManagerStats) -> Iterator[Metric]:
        num_pages = self._manager.num_pages - 1  # without the null page
        num_held = stats.num_held_pages
        states = {"held": num_held, "free": num_pages - num_held}
        yield self._gauge("pages", "Pages by whether a request or a pin holds them.", states)
        yield self._gauge(
            "cached_pages", "Pages whose content can be found.", self._manager.num_cached_pages
        )
        yield self._gauge("pinned_pages", "Pages that pins hold.", self._manager.num_pinned_pages)
        yield self._gauge("peak_held_pages", "Most pages held at a time.", stats.peak_held_pages)
        yield self._gauge(
            "page_usage_ratio",
            "Share of the pages that is held, from 0 to 1.",
            num_held / max(num_pages, 1),
        )
        yield self._gauge("requests", "Requests that hold pages.", stats.num_requests)
        yield self._gauge(
            "peak_requests", "Most requests that held pages at a time.", stats.peak_requests
        )

    def _residency(self) -> Iterator[Metric]:
        residency = self._manager.residency
        if residency is None:
            return
        for name, attribute, text in _HISTOGRAMS:
            yield self._histogram(name, f"{text} Of a sample.", getattr(residency, attribute))

    def _queues(self, scheduler: "Scheduler") -> Iterator[Metric]:
        yield self._gauge(
            "scheduler_requests",
            "Requests of the scheduler by state.",
            {"running": scheduler.num_running, "waiting": scheduler.num_waiting},
        )
        yield self._counter(
            "preemptions",
            "Times that a request gave its pages back to go on later.",
            scheduler.num_preemptions,
        )

    def _events(self, publisher: "KVEventPublisher") -> Iterator[Metric]:
        for name, count, text in (
            ("event_batches", publisher.num_batches, "Batches of KV events that were sent."),
            ("events", publisher.num_events, "KV events that were sent."),
            ("event_replays", publisher.num_replays, "Replays served from the buffer."),
            ("event_snapshots", publisher.num_snapshots, "Replays served with all there is."),
        ):
            yield self._counter(name, text, count)

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"pagedkv_{name}", text, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def _gauge(self, name: str, text: str, value: float | Mapping[str, float]) -> Metric:
        states = value if isinstance(value, Mapping) else None
        names = self._names if states is None else [*self._names, "state"]
        family = GaugeMetricFamily(f"pagedkv_{name}", text, labels=names)
        if states is None:
            family.add_metric(self._values, value)  # type: ignore[arg-type]
        for state, count in (states or {}).items():
            family.add_metric([*self._values, state], count)
        return family

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(f"pagedkv_{name}", text, labels=self._names)
        edges = [floatToGoString(bound / self._ticks_per_second) for bound in histogram.bounds]
        buckets: list[Any] = []
        total = 0
        for edge, count in zip([*edges, "+Inf"], histogram.counts, strict=True):
            total += count
            buckets.append((edge, total))
        family.add_metric(self._values, buckets, histogram.sum / self._ticks_per_second)
        return family
