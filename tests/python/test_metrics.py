"""What Prometheus is told, and a dashboard that asks for nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request
from pagedkv.events import KVEventPublisher
from pagedkv.metrics import DEFAULT_BOUNDS, PrometheusCollector, start_residency
from pagedkv.serving.scheduler import Scheduler
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

DOCS = Path(__file__).parents[2] / "docs"
LAYOUT = (4, 1, 8, "bfloat16")


def make_manager(num_pages=6, **options):
    groups = [CacheGroupSpec(FullAttentionSpec(*LAYOUT))]
    return CacheManager(num_pages, groups, max_model_len=64, **options)


def serve(manager, tokens):
    request = Request("r", tokens)
    cached = manager.match(request)
    assert manager.allocate(request, request.num_tokens - cached, num_cached_tokens=cached)
    manager.commit(request, request.num_tokens)
    manager.free(request)


def scrape(*args, **options):
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(*args, **options))
    text = generate_latest(registry).decode()
    samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            samples[sample.name, *sorted(sample.labels.items())] = sample.value
    return samples


def value(samples, name, **labels):
    return samples["pagedkv_" + name, *sorted(labels.items())]


def test_counters_are_those_of_the_manager():
    manager = make_manager()
    serve(manager, range(10))
    serve(manager, range(11))
    serve(manager, range(50, 66))
    held = Request("held", range(100, 112))
    assert manager.allocate(held, 12)
    manager.commit(held, 12)
    pin = manager.pin(held)
    assert not manager.allocate(Request("refused", range(16)), 16)
    samples = scrape(manager)
    stats = manager.stats()
    assert value(samples, "prefix_cache_query_tokens_total") == 10 + 11 + 16 + 12
    assert value(samples, "prefix_cache_hit_tokens_total") == 8
    assert value(samples, "requests_admitted_total") == 4
    assert value(samples, "allocation_failures_total") == 1
    assert value(samples, "pages", state="held") == 3
    assert value(samples, "pages", state="free") == 2
    assert value(samples, "cached_pages") == manager.num_cached_pages
    assert value(samples, "pinned_pages") == 3
    assert value(samples, "page_usage_ratio") == 3 / 5
    assert value(samples, "requests") == 1
    assert value(samples, "peak_requests") == 1
    assert value(samples, "peak_held_pages") == 4
    for name in ("allocated", "reused", "freed", "cached", "evicted"):
        assert value(samples, f"pages_{name}_total") == getattr(stats, f"num_pages_{name}")
    assert stats.num_pages_evicted > 0
    assert not any("seconds" in name or "event" in name or "sched" in name for name, *_ in samples)
    manager.unpin(pin)


def test_labels_are_on_every_sample():
    samples = scrape(make_manager(), labels={"model": "m", "rank": "0"})
    for _, *labels in samples:
        assert {("model", "m"), ("rank", "0")} <= set(labels)
    assert value(samples, "pages", model="m", rank="0", state="free") == 5


def test_residency_in_seconds():
    manager = make_manager()
    start_residency(manager, sample_rate=1, ticks_per_second=1000)
    serve(manager, range(8))
    manager.advance_time(1500)
    serve(manager, range(8))  # finds the first page, the last one is computed again
    manager.advance_time(4000)
    serve(manager, range(100, 120))
    samples = scrape(manager)
    assert manager.stats().num_pages_evicted == 3
    assert value(samples, "page_lifetime_seconds_count") == 3
    assert value(samples, "page_lifetime_seconds_sum") == 4 + 4 + 2.5
    assert value(samples, "page_idle_before_eviction_seconds_sum") == 2.5 + 4 + 2.5
    assert value(samples, "page_reuse_gap_seconds_sum") == 1.5
    assert value(samples, "page_reuse_gap_seconds_bucket", le="1.0") == 0
    assert value(samples, "page_reuse_gap_seconds_bucket", le="2.0") == 1
    assert value(samples, "page_reuse_gap_seconds_bucket", le="+Inf") == 1
    counts = [
        number
        for (name, *_), number in samples.items()
        if name == "pagedkv_page_lifetime_seconds_bucket"
    ]
    assert len(counts) == len(DEFAULT_BOUNDS) + 1
    assert counts == sorted(counts)


def test_a_coarse_unit_has_fewer_buckets():
    manager = make_manager()
    start_residency(manager, sample_rate=0.5, ticks_per_second=1)
    assert manager.residency.sample_rate == 0.5
    assert manager.residency.lifetime.bounds == [
        0,
        1,
        2,
        5,
        10,
        20,
        30,
        60,
        120,
        300,
        600,
        1200,
        1800,
    ]
    assert "bucket" in " ".join(name for name, *_ in scrape(manager, ticks_per_second=1))


def test_bad_arguments_are_refused():
    manager = make_manager()
    assert manager.residency is None
    for rate in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"sample_rate must be in \(0, 1\], got"):
            start_residency(manager, sample_rate=rate)
    for bounds in ([], [2, 1], [-1]):
        with pytest.raises(ValueError, match="bounds must be"):
            manager.start_residency(bounds=bounds)
    assert manager.residency is None
    for ticks in (0, float("nan")):
        with pytest.raises(ValueError, match="ticks_per_second must be > 0"):
            start_residency(manager, ticks_per_second=ticks)
        with pytest.raises(ValueError, match="ticks_per_second must be > 0"):
            PrometheusCollector(manager, ticks_per_second=ticks)
    start_residency(manager)
    with pytest.raises(ValueError, match="pages are sampled already"):
        start_residency(manager)


def everything():
    """A collector with all that can be exported, after some work."""
    manager = make_manager(num_pages=9)
    start_residency(manager, sample_rate=1)
    scheduler = Scheduler(manager, max_running=2, token_budget=8, watermark=0)
    publisher = KVEventPublisher(manager, "tcp://127.0.0.1:*")
    try:
        for i in range(3):
            scheduler.submit(Request(f"r{i}", range(i, i + 12)), max_new_tokens=10)
        waiting = scrape(manager, scheduler=scheduler)
        assert value(waiting, "scheduler_requests", state="waiting") == 3
        while scheduler.has_work:
            step = scheduler.schedule()
            scheduler.complete(step, np.zeros(len(step.handles), np.int32))
            publisher.publish()
        assert publisher.flush(10)
        samples = scrape(manager, scheduler=scheduler, publisher=publisher)
        assert value(samples, "event_batches_total") == publisher.num_batches > 0
        assert value(samples, "events_total") == publisher.num_events > 0
        assert value(samples, "event_snapshots_total") == 0
        assert value(samples, "preemptions_total") == scheduler.num_preemptions > 0
        assert value(samples, "scheduler_requests", state="running") == 0
        return samples
    finally:
        publisher.close()


def test_the_dashboard_asks_for_what_there_is():
    exported = {name for name, *_ in everything()}
    dashboard = json.loads((DOCS / "grafana" / "pagedkv.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    asked = set()
    for panel in panels:
        assert panel["title"]
        for target in panel["targets"]:
            names = set(re.findall(r"\bpagedkv_\w+", target["expr"]))
            assert names
            asked |= names
    assert asked <= exported, asked - exported
    assert len(asked) > 12
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_document_names_all_there_are():
    text = (DOCS / "metrics.md").read_text()
    named = set(re.findall(r"^\| `(pagedkv_\w+)", text, re.MULTILINE))
    exported = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name, *_ in everything()}
    assert named == exported
