from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pagedkv.kv_pool import KVPool
from pagedkv.serving.choices import KV_DTYPES
from pagedkv.serving.engine import Engine, Generation
from pagedkv.serving.paged_model import PagedModel

EOS = 2
NUM_NEW = 10
SHARED = 45  # tokens that all prompts start with

Score = Callable[[PagedModel, np.ndarray, int], np.ndarray]


def make_prompts(num_prompts: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    shared = rng.integers(3, 265, SHARED)
    return [
        np.concatenate([shared, rng.integers(3, 265, 4 + 5 * (i % 4))]).astype(np.int32)
        for i in range(num_prompts)
    ]


def serve(
    engine: Engine, prompts: Sequence[np.ndarray], max_new_tokens: int = NUM_NEW
) -> list[Generation]:
    generations = [engine.submit(f"r{i}", p, max_new_tokens) for i, p in enumerate(prompts)]
    while engine.has_work:
        engine.step()
        engine.manager.check_invariants()
    assert engine.num_pages_in_use == 0
    return generations


def answers(engine: Engine, prompts: Sequence[np.ndarray]) -> list[list[int]]:
    return [generation.answer for generation in serve(engine, prompts)]


@pytest.fixture(scope="module")
def expected(model: PagedModel, score: Score) -> list[list[int]]:
    """Greedy answers of the model that computes the whole text anew for each token."""

    def answer(prompt: np.ndarray) -> list[int]:
        text = prompt.tolist()
        for _ in range(NUM_NEW):
            logits = score(model, np.array(text), 96)[-1]
            runner_up, best = np.sort(logits)[-2:]
            assert best - runner_up > 1e-3  # else rounding could choose the other
            text.append(int(logits.argmax()))
            if text[-1] == EOS:
                break
        return text[len(prompt) :]

    return [answer(prompt) for prompt in make_prompts()]


def test_reference_answers_differ(expected: list[list[int]]) -> None:
    assert len({tuple(answer) for answer in expected}) >= 4
    assert all(len(set(answer)) > 1 for answer in expected)


@pytest.mark.parametrize("prefix_cache", [False, True], ids=["no_cache", "cache"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("chunk_size", [1, 7, 64])
def test_answers_do_not_depend_on_batch_chunk_or_cache(
    model: PagedModel,
    expected: list[list[int]],
    batch_size: int,
    chunk_size: int,
    prefix_cache: bool,
) -> None:
    engine = Engine(
        model,
        eos_id=EOS,
        num_pages=128,
        page_size=8,
        batch_size=batch_size,
        chunk_size=chunk_size,
        prefix_cache=prefix_cache,
    )
    assert answers(engine, make_prompts()) == expected


@pytest.mark.parametrize("page_size", [1, 16])
def test_answers_do_not_depend_on_the_page_size(
    model: PagedModel, expected: list[list[int]], page_size: int
) -> None:
    engine = Engine(model, eos_id=EOS, num_pages=512, page_size=page_size)
    assert answers(engine, make_prompts()) == expected
    assert engine.stats.num_tokens_reused > 0


@pytest.mark.parametrize(
    ("num_pages", "prefix_cache"), [(30, False), (20, True)], ids=["no_cache", "cache"]
)
def test_answers_survive_preemption(
    model: PagedModel, expected: list[list[int]], num_pages: int, prefix_cache: bool
) -> None:
    """A prompt takes 13 to 16 pages of 4 tokens, and the longest with its answer 19."""
    engine = Engine(model, eos_id=EOS, num_pages=num_pages, page_size=4, prefix_cache=prefix_cache)
    assert answers(engine, make_prompts()) == expected
    assert engine.stats.num_preemptions > 0
    assert engine.stats.peak_pages <= num_pages - 1


def test_a_shared_prefix_is_computed_once(model: PagedModel) -> None:
    """Requests wait for the pages that another is computing, even in the very same step."""
    prompts = make_prompts()
    engine = Engine(model, eos_id=EOS, num_pages=128, page_size=8, chunk_size=64)
    serve(engine, prompts)
    reusable = SHARED // 8 * 8
    stats = engine.stats
    assert stats.num_tokens_reused == (len(prompts) - 1) * reusable
    assert stats.num_tokens_prefilled == sum(map(len, prompts)) - stats.num_tokens_reused


def test_equal_prompts_share_all_but_the_last_token_or_page(model: PagedModel) -> None:
    prompt = make_prompts(1)[0][:48]
    engine = Engine(model, eos_id=EOS, num_pages=128, page_size=8)
    generations = serve(engine, [prompt] * 3)
    assert engine.stats.num_tokens_reused == 2 * 40
    assert generations[0].answer == generations[1].answer == generations[2].answer


def test_a_later_prompt_reuses_the_pages_of_a_finished_one(model: PagedModel) -> None:
    prompts = make_prompts(2)
    engine = Engine(model, eos_id=EOS, num_pages=128, page_size=8)
    serve(engine, prompts[:1])
    assert engine.stats.num_tokens_reused == 0
    serve(engine, prompts[1:])
    assert engine.stats.num_tokens_reused == 40


def test_without_prefix_cache_nothing_is_shared(model: PagedModel) -> None:
    prompts = make_prompts()
    engine = Engine(model, eos_id=EOS, num_pages=128, page_size=8, prefix_cache=False)
    serve(engine, prompts)
    assert engine.stats.num_tokens_reused == 0
    assert engine.stats.num_tokens_prefilled == sum(map(len, prompts))


def test_first_come_first_served(model: PagedModel) -> None:
    engine = Engine(model, eos_id=EOS, num_pages=128, page_size=8, batch_size=2)
    generations = [engine.submit(f"r{i}", p, 4) for i, p in enumerate(make_prompts(5))]
    spoke_first: list[Generation] = []
    while engine.has_work:
        spoke_first += [g for g, _ in engine.step() if g not in spoke_first]
    assert spoke_first == generations


def test_an_answer_ends_at_eos_or_at_its_limit(
    model: PagedModel, expected: list[list[int]]
) -> None:
    third = expected[0][2]
    ends_at = expected[0].index(third) + 1
    engine = Engine(model, eos_id=third, num_pages=128, page_size=8)
    (generation,) = serve(engine, make_prompts(1))
    assert generation.answer == expected[0][:ends_at]
    (short,) = serve(engine, make_prompts(1), max_new_tokens=1)
    assert short.answer == expected[0][:1]
    assert short.is_finished


def test_counts_tokens(model: PagedModel, expected: list[list[int]]) -> None:
    engine = Engine(model, eos_id=EOS, num_pages=128, page_size=8)
    serve(engine, make_prompts())
    # The first token of an answer comes out of the prefill.
    assert engine.stats.num_tokens_decoded == sum(len(answer) - 1 for answer in expected)
    assert engine.stats.in_pagedkv.seconds > 0
    assert engine.stats.decode_rate > 0


def test_stale_pages_do_not_leak_into_answers(model: PagedModel, expected: list[list[int]]) -> None:
    engine = Engine(model, eos_id=EOS, num_pages=128, page_size=8)
    poison = np.full(engine.cache.key_pages.shape, np.nan, np.float32)
    poison[:, 0] = 0  # the null page is never written
    engine.cache = KVPool(jnp.asarray(poison), jnp.asarray(poison))
    assert answers(engine, make_prompts()) == expected


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "message"),
    [
        ([], 4, r"\[Scheduler.submit\] big: the prompt must have at least 1 token"),
        ([5], 0, "big: max_new_tokens must be at least 1, got 0"),
        ([5, 265], 4, r"big: tokens must be in \[0, 265\)"),
        ([5, -1], 4, r"big: tokens must be in \[0, 265\)"),
        ([5] * 120, 9, "big: 120 prompt tokens and 9 new ones: the model takes at most 128"),
        ([5] * 70, 12, "big: 82 tokens need 11 pages: the pool has 10 to give"),
    ],
    ids=["empty", "no_new", "vocab", "negative", "too_long", "too_many_pages"],
)
def test_a_request_that_can_never_run_is_refused(
    model: PagedModel, prompt: list[int], max_new_tokens: int, message: str
) -> None:
    engine = Engine(model, eos_id=EOS, num_pages=11, page_size=8)
    with pytest.raises(ValueError, match=message):
        engine.submit("big", np.array(prompt, np.int32), max_new_tokens)
    assert not engine.has_work
    assert engine.num_pages_in_use == 0


def test_a_request_that_just_fits_runs(model: PagedModel) -> None:
    """The last token of an answer needs no room."""
    engine = Engine(model, eos_id=-1, num_pages=11, page_size=8)
    (generation,) = serve(engine, [np.full(70, 5, np.int32)], max_new_tokens=11)
    assert len(generation.answer) == 11
    assert engine.stats.peak_pages == 10


@pytest.mark.parametrize("name", ["page_size", "batch_size", "chunk_size"])
def test_sizes_below_one_are_refused(model: PagedModel, name: str) -> None:
    with pytest.raises(ValueError, match=rf"\[Engine\] {name} must be at least 1, got 0"):
        Engine(model, eos_id=EOS, **{name: 0})


def test_a_pool_of_the_null_page_alone_is_refused(model: PagedModel) -> None:
    with pytest.raises(ValueError, match=r"\[Engine\] num_pages must be at least 2, got 1"):
        Engine(model, eos_id=EOS, num_pages=1)


@pytest.mark.parametrize("name", ["num_pages", "page_size", "batch_size", "chunk_size"])
def test_sizes_beyond_int32_are_refused(model: PagedModel, name: str) -> None:
    with pytest.raises(ValueError, match=rf"\[Engine\] {name} must be below 2\^31, got 2147483648"):
        Engine(model, eos_id=EOS, **{name: 2**31})


def test_a_pool_beyond_memory_is_refused(model: PagedModel) -> None:
    text = r"\[Engine\] 100000000 pages of 16 tokens take [\d.,]+ [GT]iB, this machine has [\d.]+ "
    with pytest.raises(MemoryError, match=text):
        Engine(model, eos_id=EOS, num_pages=10**8)


def test_a_pool_that_a_device_has_no_room_for_is_refused(
    model: PagedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_cache(num_pages: int, page_size: int) -> Any:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(model, "num_cache_bytes", lambda num_pages, page_size: 2**20)
    monkeypatch.setattr(model, "make_cache", make_cache)
    with pytest.raises(MemoryError, match=r"20 pages of 16 tokens take 1.00 MiB, which the device"):
        Engine(model, eos_id=EOS, num_pages=20)


def test_the_size_of_a_cache_is_known_before_it_is_made(model: PagedModel) -> None:
    made = jax.tree.leaves(model.make_cache(20, 8))
    assert model.num_cache_bytes(20, 8) == sum(array.nbytes for array in made)


@pytest.mark.parametrize("kv_dtype", [name for name in KV_DTYPES if name != "float32"])
def test_pages_of_any_dtype_give_answers_that_are_nearly_the_best(
    model: PagedModel, score: Score, kv_dtype: str
) -> None:
    """With and without the prefix cache the same, and each token close to the likeliest one."""
    rounded = PagedModel(model.family, model.config, model.weights, kv_dtype)
    sizes = {"eos_id": EOS, "num_pages": 128, "page_size": 8, "batch_size": 3, "chunk_size": 16}
    prompts = make_prompts(4)
    served = answers(Engine(rounded, **sizes), prompts)
    assert served == answers(Engine(rounded, **sizes, prefix_cache=False), prompts)
    cache = rounded.make_cache(4, 8)
    assert cache.dtype == kv_dtype
    assert cache.is_quantized == (kv_dtype in ("int8", "float8_e4m3fn"))
    for prompt, answer in zip(prompts, served, strict=True):
        logits = score(model, np.concatenate([prompt, answer]), 96)[len(prompt) - 1 : -1]
        chosen = logits[np.arange(len(answer)), answer]
        tolerance = 0.3 if kv_dtype == "float8_e4m3fn" else 0.1  # of 3 bits, and of 7 or more
        assert (logits.max(axis=-1) - chosen < tolerance * logits.std(axis=-1)).all()


def test_refuses_an_unknown_kv_dtype(model: PagedModel) -> None:
    with pytest.raises(ValueError, match=r"\[PagedModel\] kv_dtype must be one of .* got 'int3'"):
        PagedModel(model.family, model.config, model.weights, "int3")
