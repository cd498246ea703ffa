"""A small trace of our own against exact LRU: lru_on_trace.py, in a few seconds."""

import json
import random

import pytest
from lru_on_trace import (
    TOKENS_PER_ID,
    load_trace,
    make_manager,
    make_request,
    replay,
)
from lru_pages import CheckedManager, LruPages, Mismatch
from pagedkv import Request, Retention

NUM_REQUESTS = 300
NUM_PAGES = 1000


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Chats that go on, and begin anew: each request shares a prefix with one before it, or none."""
    rng = random.Random(0)
    chats, lines, new_ids = [[]], [], iter(range(10**6))
    for _ in range(NUM_REQUESTS):
        chat = rng.choice(chats[-12:])
        ids = chat[: rng.randint(0, min(len(chat), 5))]
        ids += [next(new_ids) for _ in range(rng.randint(1, 3))]
        chats.append(ids)
        length = TOKENS_PER_ID * (len(ids) - 1) + rng.randint(1, TOKENS_PER_ID)
        fields = {"timestamp": 0, "input_length": length, "output_length": rng.randint(1, 100)}
        lines.append(json.dumps(fields | {"hash_ids": ids}) + "\n")
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    path.write_text("".join(lines))
    return load_trace(path)


def retained(request):
    """Every fourth request asks for its pages to be kept longer than those of others."""
    plain = make_request(request)
    priority = 80 if request.number % 4 == 0 else 50
    return Request(plain.request_id, plain.tokens, retention=Retention(priority))


def test_evicts_as_exact_lru(trace):
    report = replay(make_manager(NUM_PAGES, trace), trace, check_each_step=True)
    assert report.num_requests == NUM_REQUESTS
    assert report.num_evictions > 5_000
    assert report.num_pages_reused > 1_000
    assert report.num_preemptions > 10


def test_evicts_as_exact_lru_if_all_ask_for_default_retention(trace):
    def on_default_terms(request):
        plain = make_request(request)
        return Request(plain.request_id, plain.tokens, retention=Retention())

    replay(make_manager(NUM_PAGES, trace), trace, on_default_terms, check_each_step=True)


def test_sees_another_order_of_freed_pages(trace):
    manager = make_manager(NUM_PAGES, trace, free_order="uncached_first")
    with pytest.raises(Mismatch, match="LRU says"):
        replay(manager, trace)


def test_sees_retention(trace):
    with pytest.raises(Mismatch, match="LRU says"):
        replay(make_manager(NUM_PAGES, trace), trace, retained)


def test_sees_pages_given_back_first_page_first(trace, monkeypatch):
    give_back = LruPages.give_back
    monkeypatch.setattr(LruPages, "give_back", lambda lru, row: give_back(lru, row[::-1]))
    with pytest.raises(Mismatch, match="LRU says"):
        replay(make_manager(NUM_PAGES, trace), trace)


def test_sees_an_eviction_that_is_not_counted(trace, monkeypatch):
    monkeypatch.setattr(LruPages, "fill", lambda lru, pages: None)
    with pytest.raises(Mismatch, match="has no content"):
        replay(make_manager(NUM_PAGES, trace), trace)


def test_sees_free_pages_in_another_order(trace):
    checked = CheckedManager(make_manager(NUM_PAGES, trace))
    checked.check_order()
    checked.lru.free.move_to_end(1)
    with pytest.raises(Mismatch, match="free pages, coldest first"):
        checked.check_order()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "trace.jsonl:1: not a request"),
        ('{"input_length": 1, "output_length": 1}', "trace.jsonl:1: not a request"),
        ('{"input_length": 513, "output_length": 1, "hash_ids": [1]}', "512, got 513"),
        ('{"input_length": 0, "output_length": 1, "hash_ids": [1]}', "512, got 0"),
        ("", "has no requests"),
    ],
)
def test_refuses_what_is_no_trace(tmp_path, line, message):
    path = tmp_path / "trace.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        load_trace(path)
