"""What is recorded of a manager's calls replays to the same answers, or names the first other one."""

import gc
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import trace_file
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    FullAttentionSpec,
    MultimodalItem,
    PromptEmbeds,
    Request,
    Retention,
    RetentionRange,
    SlidingWindowSpec,
    none_hash,
    replay_ops,
)
from trace_file import ANSWER, CALL, END, MANAGER, REQUEST, TOKENS, Payload

LAYOUT = (4, 1, 8, "float32")
FULL = CacheGroupSpec(FullAttentionSpec(*LAYOUT))
WINDOW = CacheGroupSpec(SlidingWindowSpec(*LAYOUT, sliding_window=6))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ops.trace"


def make_manager(num_pages=16, groups=(FULL,), max_model_len=64, **options):
    return CacheManager(num_pages, list(groups), max_model_len, **options)


def expect_same(path, num_ops=None):
    report = replay_ops(path, check=True)
    assert report.difference is None
    assert report.was_stopped
    assert not report.is_cut
    assert report.unanswered_call is None
    assert num_ops in (None, report.num_ops)
    return report


def try_to(call, *args, **kwargs):
    """Also wrong calls are recorded."""
    try:
        return call(*args, **kwargs)
    except (ValueError, IndexError):
        return None


def play_requests(manager, draw):
    """Random calls with `Request`, some of them wrong."""
    requests = []
    for _ in range(draw(st.integers(1, 60))):
        if not requests or draw(st.integers(0, 4)) == 0:
            tokens = draw(st.lists(st.integers(0, 1), min_size=1, max_size=24))
            salt = draw(st.sampled_from([None, None, "salt"]))
            requests.append(Request(f"r{len(requests)}", tokens, cache_salt=salt))
        request = draw(st.sampled_from(requests))
        act = draw(
            st.sampled_from(["match", "admit", "grow", "free", "guess", "fork", "drop", "reset"])
        )
        if act == "match":
            manager.match(request)
        elif act == "admit":
            hit = manager.match(request)
            count = draw(st.integers(0, request.num_tokens))
            try_to(manager.allocate, request, count, num_cached_tokens=hit)
        elif act == "grow":
            request.append(draw(st.integers(0, 1)))
            try_to(manager.allocate, request, 1, num_lookahead_tokens=draw(st.integers(0, 2)))
            try_to(manager.commit, request, draw(st.integers(0, request.num_tokens)))
        elif act == "free":
            try_to(manager.free, request)
        elif act == "guess":
            request.append(draw(st.lists(st.integers(0, 1), max_size=3)))
            try_to(request.truncate, draw(st.integers(0, request.num_tokens)))
            request.append([1])
        elif act == "fork":
            child = Request(f"c{len(requests)}", request.tokens.tolist())
            try_to(manager.fork, request, child)
            requests.append(child)
        elif act == "drop":
            requests.remove(request)
            del request
        else:
            manager.reset_prefix_cache()


def play_schedulers(manager, draw):
    """Random calls with a scheduler's own request objects."""
    requests = []
    for number in range(draw(st.integers(1, 40))):
        if not requests or draw(st.integers(0, 4)) == 0:
            tokens = draw(st.lists(st.integers(0, 1), min_size=1, max_size=24))
            requests.append(
                SimpleNamespace(
                    request_id=f"s{number}",
                    num_tokens=len(tokens),
                    num_computed_tokens=0,
                    all_token_ids=tokens,
                )
            )
        request = draw(st.sampled_from(requests))
        options = draw(st.sampled_from([{}, {"dp_shard_hint": 1, "data_parallel_size": 2}]))
        if draw(st.integers(0, 5)) == 0:
            manager.free(request)
            manager.free_page_hashes(request)
            request.num_computed_tokens = 0
            continue
        pages, hit = None, 0
        if not any(manager.get_page_ids(request.request_id)):
            request.num_computed_tokens = 0
            pages, hit = manager.get_computed_pages(request, **options)
        delay = draw(st.booleans())
        count = max(1, request.num_tokens - request.num_computed_tokens - hit)
        added = try_to(
            manager.allocate_slots, request, count, hit, pages, delay_cache_pages=delay, **options
        )
        if added is not None:
            request.num_computed_tokens = request.num_tokens
            if delay:
                try_to(manager.cache_pages, request, request.num_tokens)
            request.all_token_ids.append(0)
            request.num_tokens += 1


def play_steps(manager, draw):
    """Random calls with handles, of all requests at once."""
    prompts = st.lists(st.integers(0, 1), min_size=1, max_size=16)
    prompts = draw(st.lists(prompts, min_size=1, max_size=5))
    requests = [Request(f"h{i}", tokens) for i, tokens in enumerate(prompts)]
    handles = manager.add_requests(requests)
    for _ in range(draw(st.integers(1, 8))):
        hits = manager.match_requests(handles)
        new = [
            max(1, request.num_tokens - request.num_computed_tokens - int(hit))
            for request, hit in zip(requests, hits, strict=True)
        ]
        grant = try_to(
            manager.allocate_step, handles, np.array(new, np.int32), num_cached_tokens=hits
        )
        if grant is not None:
            done = handles[: grant.num_requests]
            counts = [
                request.num_tokens - request.num_computed_tokens
                for request in requests[: grant.num_requests]
            ]
            try_to(manager.commit_step, done, np.array(counts, np.int32))
        manager.append_tokens(handles, np.zeros(len(handles), np.int32))
        if draw(st.booleans()):
            manager.free_requests(handles)
    manager.remove_requests(handles)


@pytest.mark.parametrize("play", [play_requests, play_schedulers, play_steps])
@given(data=st.data())
def test_random_calls_replay_to_the_same_answers(tmp_path_factory, play, data):
    path = tmp_path_factory.mktemp("trace") / "ops.trace"
    groups = data.draw(st.sampled_from([(FULL,), (WINDOW,), (FULL, WINDOW)]))
    manager = make_manager(data.draw(st.sampled_from([6, 12, 24])), groups)
    manager.start_recording(path)
    play(manager, data.draw)
    expect_same(path, manager.stop_recording())


@given(data=st.data())
def test_another_pool_is_seen(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("trace") / "ops.trace"
    manager = make_manager(12)
    manager.start_recording(path)
    play_requests(manager, data.draw)
    num_ops = manager.stop_recording()
    first, *rest = trace_file.read_records(path)
    assert first[:2] == bytes([MANAGER]) + trace_file.put_int(12)
    trace_file.write_records(path, [first[:1] + trace_file.put_int(9) + first[2:], *rest])
    difference = replay_ops(path).difference
    if num_ops == 0:
        assert difference is None
    else:
        assert difference.op == 1
        assert "pages free" in difference.recorded
        assert difference.recorded != difference.replayed


def test_a_reader_can_be_written_from_the_documentation(path):
    manager = make_manager(
        groups=(FULL, WINDOW), use_eagle=True, data_parallel_size=2, prefer_contiguous=True
    )
    manager.start_recording(path)
    retention = Retention(
        90, ttl=7, tenant=3, ranges=[RetentionRange(0, 2, priority=5, ttl=6)], decode_priority=20
    )
    request = Request("ré", range(6), cache_salt="salt", lora=("name", "path"), retention=retention)
    manager.allocate(request, 6)
    request.append([8, 9, 10])
    request.truncate(7)
    with pytest.raises(ValueError, match="has room for 6 tokens, got 7"):
        manager.commit(request, 7)
    manager.free(request)
    assert manager.stop_recording() == 3

    payloads = [Payload(data) for data in trace_file.read_records(path)]
    kinds = [payload.uint() for payload in payloads]
    assert kinds == [MANAGER, REQUEST, CALL, ANSWER, TOKENS, CALL, ANSWER, CALL, ANSWER, END]
    made, prompt, allocate, granted, tokens, commit, refused, free, freed, end = payloads

    assert [made.int(), made.int()] == [16, 64]  # num_pages, max_model_len
    assert [made.uint(), made.uint()] == [1, 1]  # enable_caching, use_eagle
    assert [made.uint(), made.uint()] == [0, 0]  # as_easydel, deduplicate
    assert [made.uint(), made.uint()] == [0, 1]  # uncached_first, prefer_contiguous
    assert made.text() == "sha256_cbor"
    assert made.raw(32) == none_hash()
    assert [made.int(), made.int()] == [4, 2]  # hash_page_size, shards
    assert made.uint() == 2
    assert made.text() == "FullAttentionSpec"
    assert [made.int(), made.int(), made.int(), made.text()] == [4, 1, 8, "float32"]
    assert [made.uint(), made.uint(), made.int(), made.uint()] == [0, 1, 8, 0]
    assert [made.uint(), made.uint()] == [0, 0]
    assert made.text() == "SlidingWindowSpec"

    assert [prompt.uint(), prompt.text(), prompt.ints()] == [0, "ré", [0, 1, 2, 3, 4, 5]]
    assert [prompt.int(), prompt.uint(), prompt.text(), prompt.text()] == [0, 1, "name", "path"]
    assert [prompt.uint(), prompt.uint(), prompt.text(), prompt.uint()] == [0, 1, "salt", 0]
    assert prompt.uint() == 1
    assert [prompt.int(), prompt.int(), prompt.int()] == [90, 7, 3]
    assert [prompt.int(), prompt.int(), prompt.int()] == [20, 2**63 - 1, 3]  # decoded tokens
    assert [prompt.uint(), *(prompt.int() for _ in range(4))] == [1, 0, 2, 5, 6]
    assert prompt.int() == 6  # prompt tokens
    assert prompt.at == len(prompt.data)

    assert [allocate.uint() for _ in range(3)] == [0, 4, 0]  # held elsewhere, code, request
    assert [allocate.int() for _ in range(4)] == [6, 0, 0, -1]  # new, cached, lookahead, shard
    assert [allocate.uint(), allocate.uint()] == [1, 0]  # stays_in_shard, may_be_ahead
    assert [allocate.int(), allocate.uint(), allocate.uint()] == [0, 0, 0]  # watermark, ..., prefix
    assert allocate.at == len(allocate.data)

    assert [granted.uint(), granted.int(), granted.uint(), granted.uint()] == [0, 1, 0, 2]
    assert [granted.int(), granted.int(), granted.ints()] == [0, 0, [1, 2]]
    assert [granted.int(), granted.int(), granted.ints()] == [1, 0, [3, 4]]
    assert [granted.int(), granted.int()] == [11, 0]  # free, cached
    assert granted.at == len(granted.data)

    assert [tokens.uint(), tokens.uint(), tokens.ints()] == [0, 6, [8]]
    assert [commit.uint(), commit.uint(), commit.uint(), commit.int()] == [0, 5, 0, 7]
    assert refused.uint() == 1
    assert refused.text() == "[CacheManager.commit] request 'ré' has room for 6 tokens, got 7"
    assert [free.uint(), free.uint(), free.uint()] == [0, 8, 0]
    assert [freed.uint(), freed.int(), freed.uint(), freed.uint()] == [0, 0, 0, 0]
    assert [freed.int(), freed.int()] == [15, 0]
    assert [end.int(), end.at] == [3, len(end.data)]


def test_all_extra_keys_are_recorded(path):
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    manager = make_manager()
    manager.start_recording(path)
    requests = [
        Request("image", range(9), mm_items=[MultimodalItem("cat", 1, 6)]),
        Request("other", range(9), mm_items=[MultimodalItem("dog", 1, 6)]),
        Request("embeds", range(9), prompt_embeds=PromptEmbeds(rows, page_size=4)),
        Request("lora", range(9), lora=("a", "b")),
        Request("encoder", range(9), num_encoder_tokens=3),
    ]
    for request in requests:
        assert manager.match(request) == 0
        manager.allocate(request, 9)
        manager.commit(request, 9)
    for request in requests:
        manager.free(request)
    again = Request("again", range(9), prompt_embeds=PromptEmbeds(rows, page_size=4))
    assert manager.match(again) == 8
    manager.stop_recording()
    expect_same(path)


def test_requests_that_go_give_their_pages_back_in_the_trace(path):
    manager = make_manager()
    manager.start_recording(path)
    request = Request("a", range(9))
    manager.allocate(request, 9)
    del manager, request  # the recording ends with its manager
    gc.collect()
    assert expect_same(path).num_ops == 2


def test_a_process_that_crashes_leaves_what_it_did(path):
    program = f"""
import os
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request
manager = CacheManager(16, [CacheGroupSpec(FullAttentionSpec(4, 1, 8, "float32"))], 64)
manager.start_recording({str(path)!r}, flush_each_record=True)
request = Request("a", range(9))
manager.allocate(request, 9)
manager.commit(request, 9)
os._exit(0)  # as a crash does: no destructor runs
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    report = replay_ops(path)
    assert (report.num_ops, report.was_stopped, report.is_cut) == (2, False, False)
    path.write_bytes(path.read_bytes()[:-1])
    report = replay_ops(path)
    assert (report.num_ops, report.is_cut) == (1, True)
    assert report.unanswered_call == "commit(request='a', num_computed_tokens=9)"
    assert report.difference is None


def test_a_flipped_bit_is_refused_with_its_place(path):
    manager = make_manager()
    manager.start_recording(path)
    manager.match(Request("a", range(9)))
    manager.stop_recording()
    data = bytearray(path.read_bytes())
    data[-20] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^\[replay_ops\] at byte \d+: the trace is damaged"):
        replay_ops(path)


def test_wrong_files_are_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ops\.trace"):
        replay_ops(path)
    with pytest.raises(OSError, match=str(tmp_path)):
        replay_ops(tmp_path)
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match="is no op trace"):
        replay_ops(path)
    with pytest.raises(FileNotFoundError, match="none"):
        make_manager().start_recording("/none/ops.trace")


def test_recording_starts_and_stops_once(path):
    manager = make_manager()
    with pytest.raises(ValueError, match="is not recorded"):
        manager.stop_recording()
    manager.start_recording(path)
    assert manager.is_recording
    with pytest.raises(ValueError, match="recorded already"):
        manager.start_recording(path)
    assert manager.stop_recording() == 0
    assert not manager.is_recording
    manager.allocate(Request("a", range(9)), 9)
    with pytest.raises(ValueError, match="must be as new, it has 1 requests with pages"):
        manager.start_recording(path)
    expect_same(path, 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_the_recording_alone():
    manager = make_manager()
    manager.start_recording("/dev/full", flush_each_record=True)
    request = Request("a", range(9))
    assert manager.allocate(request, 9)
    manager.free(request)
    with pytest.raises(OSError, match="No space left"):
        manager.stop_recording()
    assert not manager.is_recording
    manager.check_invariants()


def test_retention_is_recorded(path):
    manager = make_manager(num_pages=9, free_order="uncached_first")
    manager.start_recording(path)
    manager.set_tenant_quota(1, 2)
    manager.set_tenant_quota(2, None)
    for i in range(12):
        request = Request(
            f"r{i}",
            range(10 * i, 10 * i + 9),
            retention=Retention(10 * (i % 10), ttl=3, tenant=i % 3),
        )
        manager.advance_time(i)
        manager.allocate(request, 9)
        manager.commit(request, 9)
        if i == 4:
            pin = manager.pin(request)
        manager.free(request)
    manager.unpin(pin)
    with pytest.raises(ValueError, match="there is no pin"):
        manager.unpin(pin)
    with pytest.raises(ValueError, match="the time was 11 already, got 3"):
        manager.advance_time(3)
    num_ops = manager.stop_recording()
    expect_same(path, num_ops)


@pytest.mark.parametrize("what", ["quota", "time", "pin"])
def test_recording_starts_on_a_new_manager_only(path, what):
    manager = make_manager()
    if what == "quota":
        manager.set_tenant_quota(1, 1)
    elif what == "time":
        manager.advance_time(1000)
    else:
        request = Request("a", range(9))
        manager.allocate(request, 9)
        manager.commit(request, 9)
        manager.unpin(manager.pin(request))
        manager.free(request)
        manager.reset_prefix_cache()
    with pytest.raises(ValueError, match="the manager must be as new"):
        manager.start_recording(path)
    assert not manager.is_recording
