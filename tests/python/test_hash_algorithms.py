"""Every hash algorithm against the Python it is defined by: cbor2, pickle, hashlib and xxhash."""

import hashlib
import pickle
import random
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import cbor2
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    FullAttentionSpec,
    PageHasher,
    Request,
    _core,
    hash_algorithms,
    hash_page,
    none_hash,
)

INT32 = st.integers(-(2**31), 2**31 - 1)
EDGES = st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, 2**31 - 1, -1, -24, -25, -(2**31)])
TOKENS = st.lists(st.one_of(st.integers(256, 65535), EDGES, INT32), max_size=300)
GROUPS = [CacheGroupSpec(FullAttentionSpec(4, 1, 8, "float32"))]
SEEDS = st.text(max_size=2000)


def to_pickle(value: object) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def to_cbor(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def sha256(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def own_page(value: tuple[bytes, tuple[int, ...], Any]) -> bytes:
    parent, tokens, keys = value
    extra = b"" if keys is None else to_cbor(keys)
    counts = struct.pack("<II", len(tokens), len(extra))
    return struct.pack(f"<{len(tokens)}i", *tokens) + extra + parent + counts


def own_root(seed: str) -> bytes:
    text = seed.encode()
    return b"pagedkv page hash 1" + text + struct.pack("<II", 0xFFFFFFFF, len(text))


class Reference(NamedTuple):
    digest: Callable[[bytes], bytes]
    page: Callable[[Any], bytes]
    root: Callable[[str], bytes]

    def hash_page(self, *value: Any) -> bytes:
        return self.digest(self.page(value))

    def none_hash(self, seed: str) -> bytes:
        return self.digest(self.root(seed))


REFERENCES = {
    "sha256_cbor": Reference(sha256, to_cbor, to_cbor),
    "sha256": Reference(sha256, to_pickle, to_pickle),
    "xxh3_128_cbor": Reference(xxhash.xxh3_128_digest, to_cbor, to_cbor),
    "xxh3_128": Reference(xxhash.xxh3_128_digest, to_pickle, to_pickle),
    "pagedkv": Reference(sha256, own_page, own_root),
    "pagedkv_xxh3": Reference(xxhash.xxh3_128_digest, own_page, own_root),
}
ALGORITHMS = pytest.mark.parametrize("algorithm", REFERENCES)


def test_names_every_algorithm_the_default_first():
    assert hash_algorithms() == list(REFERENCES)
    assert PageHasher().algorithm == "sha256_cbor"
    assert PageHasher("xxhash").algorithm == "xxh3_128"
    assert PageHasher("xxhash_cbor").algorithm == "xxh3_128_cbor"


@ALGORITHMS
@given(seed=SEEDS)
def test_none_hash_equals_its_definition(algorithm, seed):
    assert none_hash(seed, algorithm=algorithm) == REFERENCES[algorithm].none_hash(seed)


@pytest.mark.parametrize("size", [0, 255, 256, 65535, 65536, 70000])
@ALGORITHMS
def test_none_hash_takes_seeds_of_any_length(algorithm, size):
    assert none_hash("s" * size, algorithm=algorithm) == REFERENCES[algorithm].none_hash("s" * size)


@ALGORITHMS
@given(tokens=TOKENS, seed=SEEDS)
def test_hash_page_equals_its_definition(algorithm, tokens, seed):
    parent = none_hash(seed, algorithm=algorithm)
    expected = REFERENCES[algorithm].hash_page(parent, tuple(tokens), None)
    assert hash_page(parent, tokens, algorithm=algorithm) == expected
    assert len(expected) == PageHasher(algorithm).digest_bytes


@pytest.mark.parametrize("size", [*range(70), 13098, 13099, 13100, 13101, 30000])
@ALGORITHMS
def test_hashes_pages_of_any_size(algorithm, size):
    # Pickle begins a new frame about every 13100 tokens of five bytes.
    tokens = range(100_000, 100_000 + size)
    parent = none_hash(algorithm=algorithm)
    expected = REFERENCES[algorithm].hash_page(parent, tuple(tokens), None)
    assert hash_page(parent, np.array(tokens, np.int32), algorithm=algorithm) == expected


@pytest.mark.parametrize("algorithm", ["sha256_cbor", "xxh3_128_cbor", "pagedkv", "pagedkv_xxh3"])
@given(tokens=TOKENS, keys=st.tuples(st.text(), INT32, st.binary()))
def test_hash_page_takes_extra_keys(algorithm, tokens, keys):
    parent = none_hash(algorithm=algorithm)
    expected = REFERENCES[algorithm].hash_page(parent, tuple(tokens), keys)
    assert hash_page(parent, tokens, to_cbor(keys), algorithm=algorithm) == expected


@pytest.mark.parametrize("algorithm", ["sha256", "xxh3_128"])
def test_pickle_refuses_extra_keys(algorithm):
    rule = rf"^\[hash_page\] algorithm {algorithm} takes no extra keys, .* use {algorithm}_cbor$"
    with pytest.raises(ValueError, match=rule):
        hash_page(none_hash(algorithm=algorithm), [1], b"\x01", algorithm=algorithm)


GOLDENS = {
    "sha256_cbor": (
        "9bd96a485ad84efdafb72ee48a1d7a69bcead0f8f0433173941b276b9581eef0",
        "15528b726efb88cb4d9efc583657a821bceb1f67307c6e813417567050a24fdc",
    ),
    "sha256": (
        "066b1e8987e027138e98701c46128929378935f9b6cd1549105ae6b4f0d71198",
        "9d9c413731095d0ee811a14814414907cafccd751ce2052f659e8e1f547aeb68",
    ),
}


@pytest.mark.parametrize("algorithm", GOLDENS)
def test_gives_the_digests_of_vllm(algorithm):
    root, page = GOLDENS[algorithm]
    assert none_hash(algorithm=algorithm).hex() == root
    assert hash_page(bytes.fromhex(root), range(1000, 1016), algorithm=algorithm).hex() == page


def test_xxh3_equals_xxhash_at_every_length():
    data = random.Random(1).randbytes(2000)
    for size in range(len(data) + 1):
        assert _core.xxh3_128(data[:size]) == xxhash.xxh3_128_digest(data[:size]), size


@given(st.integers(2000, 100_000), st.integers(0, 2**32))
def test_xxh3_equals_xxhash_on_long_messages(size, seed):
    data = random.Random(seed).randbytes(size)
    assert _core.xxh3_128(data) == xxhash.xxh3_128_digest(data)


@ALGORITHMS
def test_managers_and_hashers_agree(algorithm):
    manager = CacheManager(16, GROUPS, 64, hash_algorithm=algorithm, hash_seed="blue")
    hasher = PageHasher(algorithm, "blue")
    assert manager.hasher == hasher
    request = Request("a", range(10))
    manager.match(request)
    first = REFERENCES[algorithm].hash_page(hasher.root, tuple(range(4)), None)
    second = REFERENCES[algorithm].hash_page(first, tuple(range(4, 8)), None)
    assert [request.page_hash(0), request.page_hash(1)] == [first, second]
    digests = request.page_hashes()
    assert digests.dtype == np.uint8
    assert [row.tobytes() for row in digests] == [first, second]
    assert request.page_hashes(first_page=1).tobytes() == second
    assert request.page_hashes(first_page=9).shape == (0, hasher.digest_bytes)
    assert (hasher.page_hashes(request, 4) == digests).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: CacheManager(16, GROUPS, 64, hash_algorithm="md5"),
        lambda: PageHasher("md5"),
        lambda: none_hash(algorithm="md5"),
        lambda: hash_page(bytes(32), [1], algorithm="md5"),
    ],
    ids=["CacheManager", "PageHasher", "none_hash", "hash_page"],
)
def test_refuses_unknown_algorithms_and_names_the_known(make):
    known = ", ".join(REFERENCES)
    with pytest.raises(ValueError, match=rf"hash_algorithm must be one of {known}; got 'md5'$"):
        make()


def test_refuses_digests_of_another_algorithm():
    with pytest.raises(ValueError, match=r"^\[hash_page\] parent must be 16 bytes, got 32$"):
        hash_page(bytes(32), [1], algorithm="xxh3_128_cbor")


def test_managers_with_other_seeds_name_pages_otherwise():
    assert PageHasher(seed="a") != PageHasher(seed="b")
    assert PageHasher(seed="a") == PageHasher(seed="a")
    assert hash(PageHasher(seed="a")) == hash(PageHasher(seed="a"))
    assert PageHasher("sha256") != PageHasher("sha256_cbor")
