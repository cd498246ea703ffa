"""The functions on page objects, as schedulers written for EasyDeL call them."""

import hashlib
import os
import subprocess
import sys
from types import SimpleNamespace

import cbor2
import pagedkv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import PageHasher, Request, hashing
from pagedkv.hashing import (
    PageHash,
    PageHashWithGroupId,
    hash_page_tokens,
    hash_request_tokens,
)

KEYS = st.recursive(
    st.none() | st.integers(-(2**64), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=8,
)


def test_page_hash_keeps_what_it_was_made_of():
    page = hash_page_tokens(hash, 7, [1, 2, 3], ("image", "abc"))
    assert page == PageHash(hash((7, (1, 2, 3), ("image", "abc"))), (1, 2, 3), ("image", "abc"))
    assert PageHash(5, (1,)).extra_keys is None
    assert PageHashWithGroupId(page, 1).get_hash_value() == page.hash_value
    assert len({PageHashWithGroupId(page, 0), PageHashWithGroupId(page, 1)}) == 2


def test_the_first_page_has_none_hash_as_parent():
    page = hash_page_tokens(hash, None, [1, 2])
    assert page.hash_value == hash((hashing.NONE_HASH, (1, 2), None))
    assert hash_page_tokens(repr, None, [1]).hash_value == repr((hashing.NONE_HASH, (1,), None))


@pytest.mark.parametrize(
    ("seed", "expected"), [("0", hash(0)), ("17", hash(17)), ("random", None), (None, None)]
)
def test_none_hash_follows_the_environment(seed, expected):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    if seed is not None:
        environment["PYTHONHASHSEED"] = seed
    code = "from pagedkv import hashing as h; print(h.NONE_HASH); h.init_none_hash(); print(h.NONE_HASH)"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    first, second = map(int, result.stdout.split())
    if expected is None:
        assert first != second
    else:
        assert first == second == expected


@given(st.lists(st.integers(0, 99), max_size=30), st.integers(1, 8))
def test_hashes_only_full_pages_each_after_the_one_before(tokens, page_size):
    pages = hash_request_tokens(hash, page_size, SimpleNamespace(all_token_ids=tokens))
    assert len(pages) == len(tokens) // page_size
    parent = hashing.NONE_HASH
    for i, page in enumerate(pages):
        page_tokens = tuple(tokens[i * page_size : (i + 1) * page_size])
        assert page == PageHash(hash((parent, page_tokens, None)), page_tokens)
        parent = page.hash_value


def test_multimodal_features_are_keys_of_every_page():
    features = [SimpleNamespace(modality="image", mm_hash="abc"), SimpleNamespace()]
    request = SimpleNamespace(all_token_ids=[1, 2, 3, 4], has_vision=True, mm_features=features)
    pages = hash_request_tokens(hash, 2, request)
    assert [page.extra_keys for page in pages] == [(("image", "abc"), ("mm", ""))] * 2
    request.has_vision = False
    assert [page.extra_keys for page in hash_request_tokens(hash, 2, request)] == [None, None]


@pytest.mark.parametrize("algorithm", ["sha256_cbor", "sha256", "xxh3_128_cbor", "pagedkv"])
def test_takes_ours_by_name_and_as_hashers(algorithm):
    tokens = list(range(35))
    hasher = PageHasher(algorithm)
    expected = [row.tobytes() for row in hasher.page_hashes(Request("a", tokens), 16)]
    request = SimpleNamespace(all_token_ids=tokens)
    for function in (algorithm, hasher):
        assert [p.hash_value for p in hash_request_tokens(function, 16, request)] == expected


@given(st.lists(KEYS, max_size=4).map(tuple))
def test_ours_hash_extra_keys_as_cbor(keys):
    page = hash_page_tokens("sha256_cbor", None, [1, 2], keys)
    value = (PageHasher().root, (1, 2), keys)
    assert page.hash_value == hashlib.sha256(cbor2.dumps(value, canonical=True)).digest()


@pytest.mark.parametrize("key", [1.5, True, {1: 2}, 2**64, -(2**64) - 1], ids=repr)
def test_ours_refuse_other_extra_keys(key):
    with pytest.raises(TypeError, match=r"^\[hash_page_tokens\] "):
        hash_page_tokens("sha256_cbor", None, [1], (key,))


def test_refuses_unknown_names_and_empty_pages():
    with pytest.raises(ValueError, match="hash_algorithm must be one of"):
        hash_page_tokens("md5", None, [1])
    with pytest.raises(ValueError, match=r"^\[hash_request_tokens\] page_size must be at least 1"):
        hash_request_tokens(hash, 0, SimpleNamespace(all_token_ids=[1]))


def test_names_are_at_the_top_too(monkeypatch):
    for name in ("PageHash", "PageHashWithGroupId", "hash_page_tokens", "hash_request_tokens"):
        assert getattr(pagedkv, name) is getattr(hashing, name)
    monkeypatch.setattr(hashing, "NONE_HASH", 5)  # put back at the end
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    pagedkv.init_none_hash()
    assert pagedkv.NONE_HASH == hashing.NONE_HASH == hash(77)
