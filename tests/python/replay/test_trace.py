"""Reading traces: every line checked, equal content for equal ids alone."""

import gzip
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv.replay import TraceError, TraceRequest, read_trace

SMALL = Path(__file__).parents[3] / "examples" / "traces" / "chat.jsonl"
LINE = {"timestamp": 5, "input_length": 1300, "output_length": 52, "hash_ids": [4, 5, 6]}


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_reads_what_is_there(tmp_path):
    path = write(
        tmp_path / "a.jsonl", json.dumps(LINE), "", json.dumps(LINE | {"hash_ids": [7, 8, 9]})
    )
    first, second = read_trace(path)
    assert (first.timestamp, first.input_length, first.output_length) == (5, 1300, 52)
    assert first.hash_ids.tolist() == [4, 5, 6]
    assert second.hash_ids.tolist() == [7, 8, 9]
    assert first.block_size == 512


def test_packed_traces_are_unpacked(tmp_path):
    path = tmp_path / "small.jsonl.gz"
    path.write_bytes(gzip.compress(SMALL.read_bytes()))
    positions = []
    packed = list(read_trace(path, on_bytes=positions.append))
    assert [r.input_length for r in packed] == [r.input_length for r in read_trace(SMALL)]
    assert positions[-1] == path.stat().st_size


def test_optional_fields(tmp_path):
    path = write(tmp_path / "a", '{"input_length": 130, "hash_ids": [1, 2, 3], "block_size": 64}')
    (request,) = read_trace(path)
    assert (request.timestamp, request.output_length, request.block_size) == (0, 1, 64)
    assert len(request.tokens()) == 130


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON"),
        ("[1]", "must be an object, got list"),
        (json.dumps(LINE | {"input_length": 0}), "input_length must be an integer >= 1, got 0"),
        (json.dumps(LINE | {"input_length": "x"}), "input_length must be an integer >= 1, got 'x'"),
        (json.dumps(LINE | {"input_length": True}), "input_length must be an integer >= 1"),
        (json.dumps(LINE | {"output_length": -1}), "output_length must be an integer >= 0, got -1"),
        (json.dumps(LINE | {"timestamp": -1}), "timestamp must be an integer >= 0, got -1"),
        (
            json.dumps(LINE | {"hash_ids": [1, 2]}),
            "1300 tokens are 3 blocks of 512, got 2 hash_ids",
        ),
        (json.dumps(LINE | {"hash_ids": [1, 2, -3]}), "hash_ids must be a list of integers in"),
        (json.dumps(LINE | {"hash_ids": [1, 2, 2**62]}), "hash_ids must be a list of integers in"),
        (json.dumps(LINE | {"hash_ids": None}), "hash_ids must be a list of integers in"),
        (json.dumps(LINE | {"block_size": 1}), "block_size must be an integer >= 2, got 1"),
        ('{"hash_ids": [1]}', "input_length must be an integer >= 1, got None"),
        (b"\xff\xfe".decode("latin-1"), "no JSON"),
    ],
)
def test_broken_lines_are_named(tmp_path, line, why):
    path = write(tmp_path / "bad.jsonl", json.dumps(LINE), line)
    requests = read_trace(path)
    next(requests)
    with pytest.raises(TraceError) as error:
        next(requests)
    assert str(error.value).startswith(f"[read_trace] {path}, line 2:")
    assert why in str(error.value)


def test_a_file_that_is_not_packed_is_refused(tmp_path):
    path = write(tmp_path / "a.gz", json.dumps(LINE))
    with pytest.raises(TraceError, match="Not a gzipped file"):
        list(read_trace(path))


def test_block_sizes_below_two_are_refused():
    with pytest.raises(ValueError, match=r"^\[read_trace\] block_size must be at least 2, got 1$"):
        next(read_trace(SMALL, block_size=1))


IDS = st.one_of(st.integers(0, 5), st.integers(0, 2**62 - 1), st.integers(2**31 - 2, 2**31 + 2))


@given(st.lists(IDS, min_size=1, max_size=4), IDS, st.integers(2, 40))
def test_blocks_are_equal_iff_their_ids_are(ids, other, block_size):
    def tokens(ids):
        length = block_size * len(ids)
        return TraceRequest(0, length, 1, np.array(ids, np.int64), block_size).tokens()

    given_tokens = tokens(ids)
    assert given_tokens.dtype == np.int32
    assert given_tokens.min() >= 0
    blocks = given_tokens.reshape(-1, block_size)
    for id_, block in zip(ids, blocks, strict=True):
        assert (id_ == other) == (block == tokens([other])).all()
    assert (tokens([*ids, other])[: len(given_tokens)] == given_tokens).all()


def test_reads_from_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[SMALL.read_bytes()])
    writer.start()
    positions = []
    requests = list(read_trace(path, on_bytes=positions.append))
    writer.join(timeout=60)
    assert [r.input_length for r in requests] == [r.input_length for r in read_trace(SMALL)]
    assert set(positions) == {0}
