"""Page hashes against cbor2 and hashlib, which is what vLLM computes them with."""

import hashlib

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import _core

PARENTS = st.binary(min_size=32, max_size=32)
INT32 = st.integers(-(2**31), 2**31 - 1)
EDGES = st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, 2**31 - 1, -1, -24, -25, -(2**31)])
TOKENS = st.lists(st.one_of(st.integers(256, 65535), EDGES, INT32), max_size=300)
EXTRA_KEYS = st.lists(
    st.one_of(
        st.tuples(st.just("lora"), st.text(), st.text()),
        st.tuples(st.just("mm"), st.text(), INT32),
        st.tuples(st.just("cache_salt"), st.text()),
        st.tuples(st.just("prompt_embeds"), st.binary()),
    ),
    min_size=1,
    max_size=4,
).map(tuple)


def reference_hash(value: object) -> bytes:
    return hashlib.sha256(cbor2.dumps(value, canonical=True)).digest()


@given(st.binary(max_size=1000))
def test_sha256_equals_hashlib(data: bytes) -> None:
    assert _core.sha256(data) == hashlib.sha256(data).digest()


@given(st.text(max_size=2000))
def test_none_hash_equals_cbor2(seed: str) -> None:
    assert _core.none_hash(seed) == reference_hash(seed)


def test_gives_the_digests_of_vllm() -> None:
    root = _core.none_hash()
    assert root.hex() == "9bd96a485ad84efdafb72ee48a1d7a69bcead0f8f0433173941b276b9581eef0"
    page = _core.hash_page(root, list(range(1000, 1016)))
    assert page.hex() == "15528b726efb88cb4d9efc583657a821bceb1f67307c6e813417567050a24fdc"


@given(PARENTS, TOKENS)
def test_hash_page_equals_cbor2(parent: bytes, tokens: list[int]) -> None:
    expected = reference_hash((parent, tuple(tokens), None))
    assert _core.hash_page(parent, tokens) == expected
    assert _core.hash_page(parent, np.array(tokens, np.int32)) == expected


@given(PARENTS, TOKENS, EXTRA_KEYS)
def test_hash_page_takes_extra_keys(parent: bytes, tokens: list[int], keys: tuple) -> None:
    extra = cbor2.dumps(keys, canonical=True)
    assert _core.hash_page(parent, tokens, extra) == reference_hash((parent, tuple(tokens), keys))


@given(st.lists(st.integers(0, 150_000), max_size=200), st.sampled_from([1, 4, 16]))
def test_hashes_a_prompt_page_by_page(prompt: list[int], page_size: int) -> None:
    expected = digest = reference_hash("vllm-none-hash")
    assert _core.none_hash() == digest
    for begin in range(0, len(prompt) - page_size + 1, page_size):
        tokens = prompt[begin : begin + page_size]
        expected = reference_hash((expected, tuple(tokens), None))
        digest = _core.hash_page(digest, np.array(tokens, np.int32))
    assert digest == expected


@pytest.mark.parametrize(
    "tokens",
    [(5, 70_000), range(5, 7), np.array([5, 70_000], np.int64), np.arange(4, dtype=np.int32)[::2]],
    ids=["tuple", "range", "int64", "strided"],
)
def test_takes_any_sequence_of_int32_values(tokens) -> None:
    parent = bytes(32)
    expected = reference_hash((parent, tuple(int(token) for token in tokens), None))
    assert _core.hash_page(parent, tokens) == expected


def test_empty_extra_is_none() -> None:
    parent = bytes(32)
    assert _core.hash_page(parent, [1], b"") == _core.hash_page(parent, [1], None)
    assert _core.hash_page(parent, tokens=[1], extra=None) == _core.hash_page(parent, [1])


@pytest.mark.parametrize("size", [0, 5, 31, 33])
def test_refuses_a_parent_of_the_wrong_size(size: int) -> None:
    with pytest.raises(ValueError, match=rf"^\[hash_page\] parent must be 32 bytes, got {size}$"):
        _core.hash_page(bytes(size), [1, 2])


@pytest.mark.parametrize(
    "tokens",
    [[2**31], [-(2**31) - 1], [2**80], np.array([2**40]), np.array([2**63], np.uint64)],
    ids=["too large", "too small", "huge", "wide int64", "wide uint64"],
)
def test_refuses_tokens_that_are_not_int32(tokens) -> None:
    with pytest.raises(ValueError, match=r"^\[hash_page\] tokens must fit in int32, got -?\d+ at"):
        _core.hash_page(bytes(32), tokens)


@pytest.mark.parametrize(
    "tokens",
    [[1.5], ["1"], [[1]], np.zeros((2, 2), np.int32), np.array([1.5]), "1", b"1", {1}, 7],
    ids=repr,
)
def test_refuses_tokens_that_are_not_integers(tokens) -> None:
    with pytest.raises(TypeError, match=r"^\[hash_page\] tokens must be "):
        _core.hash_page(bytes(32), tokens)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_takes_every_integer_dtype_and_stride(dtype) -> None:
    tokens = np.arange(64, dtype=dtype)[::2]
    assert _core.hash_page(bytes(32), tokens) == _core.hash_page(bytes(32), tokens.tolist())
