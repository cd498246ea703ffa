"""What besides tokens decides a page's digest: against the tuple that vLLM hashes."""

import hashlib
import re
from itertools import pairwise

import cbor2
import ml_dtypes
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    FullAttentionSpec,
    MultimodalItem,
    PageHasher,
    PromptEmbeds,
    Request,
)
from pagedkv.hashing import prompt_embeds

NUM_TOKENS = 40
TOKENS = list(range(NUM_TOKENS))
TEXT = st.text(min_size=1, max_size=40)
DIGESTS = {
    "sha256_cbor": lambda message: hashlib.sha256(message).digest(),
    "xxh3_128_cbor": xxhash.xxh3_128_digest,
}


def make_manager(page_size=4, **options):
    spec = FullAttentionSpec(page_size, num_kv_heads=1, head_size=8, dtype="float32")
    return CacheManager(64, [CacheGroupSpec(spec)], 128, **options)


def compute(manager, request):
    """Takes what is cached, computes the rest. Returns the number of cached tokens."""
    cached = manager.match(request)
    assert manager.allocate(request, request.num_tokens - cached, num_cached_tokens=cached)
    manager.commit(request, request.num_tokens)
    manager.free(request)
    return cached


@st.composite
def mm_items(draw):
    """Items one after the other, with or without gaps."""
    cuts = sorted(draw(st.sets(st.integers(0, NUM_TOKENS), max_size=8)))
    spans = [(a, b) for a, b in pairwise(cuts) if draw(st.booleans())]
    return [MultimodalItem(draw(TEXT), a, b - a) for a, b in spans]


@st.composite
def keys(draw, page_size):
    embeds = draw(st.integers(0, NUM_TOKENS))
    rows = np.arange(embeds * 6, dtype=np.uint8).reshape(embeds, 6)
    return {
        "lora": draw(st.none() | st.tuples(TEXT, st.text(max_size=40))),
        "mm_items": draw(mm_items()),
        "cache_salt": draw(st.none() | TEXT),
        "prompt_embeds": rows if embeds else None,
        "page_size": page_size,
    }


def expected_keys(page, *, lora, mm_items, cache_salt, prompt_embeds, page_size):
    begin, end = page * page_size, (page + 1) * page_size
    found = [] if lora is None else [("lora", *lora)]
    found += [
        ("mm", item.identifier, item.offset - begin)
        for item in mm_items
        if item.offset < end and item.offset + item.length > begin
    ]
    if cache_salt is not None and page == 0:
        found.append(("cache_salt", cache_salt))
    if prompt_embeds is not None:
        digest = hashlib.sha256(prompt_embeds[begin:end].tobytes()).digest()
        found.append(("prompt_embeds", digest))
    return tuple(found) or None


def expected_digests(algorithm, options):
    size = options["page_size"]
    parent = PageHasher(algorithm).root
    for page in range(NUM_TOKENS // size):
        tokens = tuple(TOKENS[page * size : (page + 1) * size])
        value = (parent, tokens, expected_keys(page, **options))
        parent = DIGESTS[algorithm](cbor2.dumps(value, canonical=True))
        yield parent


@pytest.mark.parametrize("algorithm", DIGESTS)
@given(st.sampled_from([1, 3, 4, 16]).flatmap(keys), st.randoms())
def test_digests_equal_the_tuple_of_vllm(algorithm, options, random):
    arguments = {name: value for name, value in options.items() if name != "page_size"}
    if arguments["prompt_embeds"] is not None:
        arguments["prompt_embeds"] = PromptEmbeds(options["prompt_embeds"], options["page_size"])
    arguments["mm_items"] = random.sample(options["mm_items"], len(options["mm_items"]))
    request = Request("a", TOKENS, **arguments)
    digests = PageHasher(algorithm).page_hashes(request, options["page_size"])
    assert [row.tobytes() for row in digests] == list(expected_digests(algorithm, options))


@given(st.integers(1, 5).flatmap(keys), st.lists(st.integers(1, 9), max_size=20))
def test_appended_tokens_hash_as_if_given_at_once(options, steps):
    arguments = {
        name: value for name, value in options.items() if name in ("lora", "mm_items", "cache_salt")
    }
    whole = Request("a", TOKENS + list(range(sum(steps))), **arguments)
    grown = Request("b", TOKENS, **arguments)
    manager = make_manager(options["page_size"])
    manager.match(grown)
    begin = 0
    for step in steps:
        grown.append(range(begin, begin + step))
        begin += step
        grown.page_hashes()
    manager.match(whole)
    assert (grown.page_hashes() == whole.page_hashes()).all()


def test_every_overlapping_item_counts():
    wide = MultimodalItem("video", 0, 32)
    hasher = PageHasher()
    one = hasher.page_hashes(Request("a", TOKENS, mm_items=[wide]), 4)
    two = hasher.page_hashes(
        Request("b", TOKENS, mm_items=[MultimodalItem("sound", 9, 2), wide]), 4
    )
    assert (one[:2] == two[:2]).all()
    assert (one[2:] != two[2:]).any(axis=1).all()


def test_tenants_with_different_salts_never_share():
    manager = make_manager()
    assert compute(manager, Request("a", TOKENS, cache_salt="red")) == 0
    assert compute(manager, Request("b", TOKENS, cache_salt="blue")) == 0
    assert compute(manager, Request("c", TOKENS)) == 0
    assert compute(manager, Request("d", TOKENS, cache_salt="red")) == 36
    manager.check_invariants()


@given(TEXT, TEXT)
def test_salts_share_only_if_equal(first, second):
    manager = make_manager()
    compute(manager, Request("a", TOKENS, cache_salt=first))
    assert manager.match(Request("b", TOKENS, cache_salt=second)) == (36 if first == second else 0)


def test_adapters_share_only_if_name_and_path_are_equal():
    manager = make_manager()
    compute(manager, Request("a", TOKENS, lora=("math", "/v1")))
    assert manager.match(Request("b", TOKENS, lora=("math", "/v2"))) == 0
    assert manager.match(Request("c", TOKENS, lora=("code", "/v1"))) == 0
    assert manager.match(Request("d", TOKENS, cache_salt="math")) == 0
    assert manager.match(Request("e", TOKENS, lora=("math", "/v1"))) == 36


def test_text_before_an_item_is_shared_with_plain_text():
    manager = make_manager()
    compute(manager, Request("text", TOKENS))
    cat = [MultimodalItem("cat", 14, 8)]
    assert manager.match(Request("cat", TOKENS, mm_items=cat)) == 12
    compute(manager, Request("cat", TOKENS, mm_items=cat))
    assert manager.match(Request("cat again", TOKENS, mm_items=cat)) == 36
    assert manager.match(Request("dog", TOKENS, mm_items=[MultimodalItem("dog", 14, 8)])) == 12
    assert manager.match(Request("moved", TOKENS, mm_items=[MultimodalItem("cat", 15, 8)])) == 12
    assert manager.match(Request("text again", TOKENS)) == 36


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int8])
def test_prompt_embeds_take_any_dtype(dtype):
    embeds = np.arange(60).reshape(10, 6).astype(dtype)
    request = Request("a", TOKENS, prompt_embeds=prompt_embeds(embeds, 4))
    expected = {"lora": None, "mm_items": [], "cache_salt": None, "page_size": 4}
    digests = PageHasher().page_hashes(request, 4)
    assert [row.tobytes() for row in digests] == list(
        expected_digests("sha256_cbor", expected | {"prompt_embeds": embeds})
    )


def test_prompt_embeds_share_only_if_equal():
    manager = make_manager()
    embeds = np.zeros((8, 2), np.float32)
    compute(manager, Request("a", TOKENS, prompt_embeds=prompt_embeds(embeds, 4)))
    assert manager.match(Request("b", TOKENS, prompt_embeds=prompt_embeds(embeds, 4))) == 36
    embeds[5, 1] = 1
    assert manager.match(Request("c", TOKENS, prompt_embeds=prompt_embeds(embeds, 4))) == 4
    assert manager.match(Request("d", TOKENS)) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (lambda: {"lora": ("", "p")}, "[ExtraKeys] the name of an adapter must not be empty"),
        (
            lambda: {"cache_salt": ""},
            "[ExtraKeys] cache_salt must not be empty: it would separate nothing",
        ),
        (
            lambda: {"mm_items": [MultimodalItem("", 0, 1)]},
            "the identifier of a multimodal item must not",
        ),
        (
            lambda: {"mm_items": [MultimodalItem("i", -1, 1)]},
            "offset >= 0 and length >= 1, got -1 and 1",
        ),
        (
            lambda: {"mm_items": [MultimodalItem("i", 0, 0)]},
            "offset >= 0 and length >= 1, got 0 and 0",
        ),
        (
            lambda: {"mm_items": [MultimodalItem("i", 39, 2)]},
            "[Request] multimodal item 'i' covers tokens 39 to 41, request 'a' has 40",
        ),
        (
            lambda: {"mm_items": [MultimodalItem("i", 2**62, 2**62)]},
            "[Request] multimodal item 'i'",
        ),
        (
            lambda: {"prompt_embeds": PromptEmbeds(np.zeros((41, 1), np.uint8), 4)},
            "[Request] there are 41 prompt embeddings, request 'a' has 40 tokens",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_keys_that_mean_nothing(options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        Request("a", TOKENS, **options())


def test_pickle_algorithms_refuse_requests_with_keys_and_change_nothing():
    manager = make_manager(hash_algorithm="sha256")
    request = Request("a", TOKENS, cache_salt="red")
    rule = r"^\[Request\] request 'a' has extra keys, hash algorithm sha256 takes none; "
    with pytest.raises(ValueError, match=rule):
        manager.match(request)
    with pytest.raises(ValueError, match=rule):
        manager.allocate(request, 4)
    assert not request.is_allocated
    assert manager.num_free_pages == 63
    uncached = make_manager(hash_algorithm="sha256", enable_caching=False)
    assert uncached.match(request) == 0
    assert uncached.allocate(request, NUM_TOKENS)
    uncached.commit(request, NUM_TOKENS)
    uncached.free(request)


def test_refuses_embeddings_hashed_for_another_page_size():
    request = Request("a", TOKENS, prompt_embeds=prompt_embeds(np.zeros((8, 2)), 8))
    with pytest.raises(ValueError, match=r"were hashed for pages of 8 tokens, pages have 4$"):
        make_manager().match(request)


@pytest.mark.parametrize("embeds", [np.zeros((0, 4)), np.zeros((4, 0)), np.zeros(4)], ids=str)
def test_refuses_embeddings_without_shape(embeds):
    with pytest.raises(ValueError, match=r"^\[prompt_embeds\] embeds must have shape"):
        prompt_embeds(embeds, 4)


def test_refuses_embeddings_for_pages_without_tokens():
    with pytest.raises(ValueError, match=r"^\[PromptEmbeds\] page_size must be at least 1, got 0$"):
        prompt_embeds(np.zeros((4, 4)), 0)


def test_requests_show_their_keys():
    items = [MultimodalItem("dog", 20, 4), MultimodalItem("cat", 2, 3)]
    request = Request("a", TOKENS, lora=("math", "/v1"), mm_items=items, cache_salt="red")
    assert request.lora == ("math", "/v1")
    assert request.mm_items == items[::-1]
    assert request.cache_salt == "red"
    assert repr(items[0]) == "MultimodalItem('dog', offset=20, length=4)"
    plain = Request("b", TOKENS)
    assert (plain.lora, plain.mm_items, plain.cache_salt) == (None, [], None)
