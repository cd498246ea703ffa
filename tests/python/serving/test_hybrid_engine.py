"""A model with sliding and full layers: its answers, and the pages that its windows give back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pagedkv.kv_pool import KVPool
from pagedkv.serving import gemma3
from pagedkv.serving.dense import score
from pagedkv.serving.engine import Engine, Generation
from pagedkv.serving.layer_groups import LayerPlaces, make_groups
from pagedkv.serving.model_files import ModelFile, ModelFileError
from pagedkv.serving.models import load_model
from pagedkv.serving.paged_model import PagedModel, StepInputs, _step
from pagedkv.testing import assert_in_place
from tiny_gemma3 import CONFIG, WINDOW, random_tensors, write_tiny_gemma3

EOS = 1
NUM_NEW = 12
SHARED = 45  # tokens that all prompts start with: almost four windows
SLIDING, FULL = range(5), 5  # groups


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> PagedModel:
    return load_model(
        ModelFile(write_tiny_gemma3(tmp_path_factory.mktemp("m") / "a.gguf")), "float32"
    )


def make_prompts(num_prompts: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    shared = rng.integers(3, CONFIG.vocab_size, SHARED)
    return [
        np.concatenate([shared, rng.integers(3, CONFIG.vocab_size, 3 + 7 * (i % 4))]).astype(
            np.int32
        )
        for i in range(num_prompts)
    ]


def answer_densely(model: PagedModel, prompt: np.ndarray) -> list[int]:
    """Greedy, computing the whole text anew for each token."""
    text = prompt.tolist()
    while len(text) < len(prompt) + NUM_NEW and text[-1] != EOS:
        logits = np.asarray(score(model, np.array(text), 96))[-1]
        runner_up, best = np.sort(logits)[-2:]
        assert best - runner_up > 1e-3  # else rounding could choose the other
        text.append(int(logits.argmax()))
    return text[len(prompt) :]


@pytest.fixture(scope="module")
def expected(hybrid: PagedModel) -> list[list[int]]:
    return [answer_densely(hybrid, prompt) for prompt in make_prompts()]


def serve(engine: Engine, prompts: Sequence[np.ndarray]) -> list[Generation]:
    generations = [engine.submit(f"r{i}", p, NUM_NEW) for i, p in enumerate(prompts)]
    while engine.has_work:
        engine.step()
        engine.manager.check_invariants()
    assert engine.num_pages_in_use == 0
    return generations


def answers(engine: Engine, prompts: Sequence[np.ndarray]) -> list[list[int]]:
    return [generation.answer for generation in serve(engine, prompts)]


# Where layers are


def test_reads_the_sizes_and_the_layers(hybrid: PagedModel) -> None:
    assert replace(hybrid.config, rms_eps=CONFIG.rms_eps) == CONFIG
    assert hybrid.config.windows == ((WINDOW,) * 5 + (None,)) * 2


def test_groups_have_equal_numbers_of_layers() -> None:
    groups = make_groups(CONFIG, page_size=4, kv_dtype="float32")
    assert [group.layer_names for group in groups] == [
        ["layer.0", "layer.1"],
        ["layer.2", "layer.3"],
        ["layer.4", "layer.6"],
        ["layer.7", "layer.8"],
        ["layer.9", "layer.10"],
        ["layer.5", "layer.11"],
    ]
    windows = [getattr(group.kv_cache_spec, "sliding_window", None) for group in groups]
    assert windows == [WINDOW] * 5 + [None]
    assert len({group.kv_cache_spec.page_size_bytes for group in groups}) == 1


@pytest.mark.parametrize("num_layers", [1, 5, 6, 7, 18, 26, 62])
def test_each_layer_has_a_place_of_its_own(num_layers: int) -> None:
    places = LayerPlaces.of(replace(CONFIG, num_layers=num_layers))
    assert len({*zip(places.groups, places.tensors, strict=True)}) == num_layers
    assert places.num_groups * places.num_tensors == num_layers


def test_layers_share_the_tensors_of_one_group(hybrid: PagedModel) -> None:
    assert hybrid.make_cache(8, 4).key_pages.shape == (2, 8, 4, 1, CONFIG.head_dim)


# Answers


def test_reference_answers_differ(expected: list[list[int]]) -> None:
    assert len({tuple(answer) for answer in expected}) >= 4
    assert all(len(set(answer)) > 1 for answer in expected)


def test_the_window_and_the_full_layers_matter(
    hybrid: PagedModel, expected: list[list[int]]
) -> None:
    for windows in ((None,) * 12, (WINDOW,) * 12):
        kind = type("Other", (gemma3.Gemma3Config,), {"windows": windows})
        other = PagedModel(gemma3.FAMILY, kind(**vars(hybrid.config)), hybrid.weights)
        logits = np.asarray(score(other, make_prompts()[0], 96))[-1]
        assert np.abs(logits - np.asarray(score(hybrid, make_prompts()[0], 96))[-1]).max() > 0.1
        assert other.places.num_groups == 1


@pytest.mark.parametrize("prefix_cache", [False, True], ids=["no_cache", "cache"])
@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 64), (3, 1), (3, 7), (6, 64), (6, 300)])
def test_answers_do_not_depend_on_batch_chunk_or_cache(
    hybrid: PagedModel,
    expected: list[list[int]],
    batch_size: int,
    chunk_size: int,
    prefix_cache: bool,
) -> None:
    engine = Engine(
        hybrid,
        eos_id=EOS,
        num_pages=512,
        page_size=4,
        batch_size=batch_size,
        chunk_size=chunk_size,
        prefix_cache=prefix_cache,
    )
    assert answers(engine, make_prompts()) == expected
    assert (engine.stats.num_tokens_reused > 0) == prefix_cache


@pytest.mark.parametrize("page_size", [1, 5, 16, 64])
def test_answers_do_not_depend_on_the_page_size(
    hybrid: PagedModel, expected: list[list[int]], page_size: int
) -> None:
    engine = Engine(hybrid, eos_id=EOS, num_pages=1024, page_size=page_size)
    assert answers(engine, make_prompts()) == expected


@pytest.mark.parametrize(
    ("num_pages", "prefix_cache"), [(85, False), (85, True)], ids=["no_cache", "cache"]
)
def test_answers_survive_preemption(
    hybrid: PagedModel, expected: list[list[int]], num_pages: int, prefix_cache: bool
) -> None:
    engine = Engine(
        hybrid,
        eos_id=EOS,
        num_pages=num_pages,
        page_size=4,
        chunk_size=16,
        prefix_cache=prefix_cache,
    )
    assert answers(engine, make_prompts()) == expected
    assert engine.stats.num_preemptions > 0
    assert engine.stats.peak_pages <= num_pages - 1
    assert (engine.stats.num_tokens_reused > 0) == prefix_cache


def test_a_later_prompt_finds_a_prefix_whose_windows_moved_on(
    hybrid: PagedModel, expected: list[list[int]]
) -> None:
    """Pages that a window gave back can be found until somebody takes them."""
    engine = Engine(hybrid, eos_id=EOS, num_pages=512, page_size=4)
    prompts = make_prompts(2)
    assert answers(engine, prompts[:1]) + answers(engine, prompts[1:]) == expected[:2]
    assert engine.stats.num_tokens_reused == SHARED // 4 * 4


def test_stale_pages_do_not_leak_into_answers(
    hybrid: PagedModel, expected: list[list[int]]
) -> None:
    """Not the null page either, which stands for pages that were given back."""
    engine = Engine(hybrid, eos_id=EOS, num_pages=512, page_size=4, chunk_size=7)
    poison = jnp.full(engine.cache.key_pages.shape, jnp.nan)
    engine.cache = KVPool(poison, poison + 1)
    assert answers(engine, make_prompts()) == expected
    assert np.isnan(engine.cache.key_pages[:, 0]).all()


# Pages


def test_windows_give_their_pages_back(hybrid: PagedModel) -> None:
    prompt = np.resize(make_prompts()[3], 100)
    engine = Engine(hybrid, eos_id=-1, num_pages=200, page_size=4, chunk_size=8, prefix_cache=False)
    generation = engine.submit("long", prompt, NUM_NEW)
    manager = engine.manager
    while not generation.is_finished:
        engine.step()
        if generation.is_finished:
            break
        # Rows are as `allocate` left them, before the step's tokens were computed.
        num_pages = len(manager.page_ids(generation.request, FULL))
        assert manager.page_ids(generation.request, FULL).all()
        for group in SLIDING:
            row = manager.page_ids(generation.request, group)
            num_held = np.count_nonzero(row)
            assert len(row) == num_pages
            assert num_held <= (WINDOW - 1 + 8 + 3) // 4 + 1
            assert not row[: num_pages - num_held].any()
        held = sum(np.count_nonzero(manager.page_ids(generation.request, g)) for g in range(6))
        assert engine.num_pages_in_use == held
    assert num_pages == 28
    assert engine.stats.peak_pages <= 28 + 5 * 6 < 6 * 28
    assert engine.num_pages_in_use == 0


def test_a_prompt_too_long_for_a_pool_without_windows_runs(hybrid: PagedModel) -> None:
    """100 tokens and 11 of the answer: 28 pages of each of 6 groups, of which 5 need 6 at a time."""
    prompt = np.resize(make_prompts()[3], 100)
    sizes = {"page_size": 4, "chunk_size": 8}
    engine = Engine(hybrid, eos_id=-1, num_pages=1 + 28 + 5 * 6, **sizes)
    (generation,) = serve(engine, [prompt])
    roomy = Engine(hybrid, eos_id=-1, num_pages=400, page_size=4, chunk_size=64)
    assert generation.answer == serve(roomy, [prompt])[0].answer
    assert engine.stats.num_preemptions == 0
    small = Engine(hybrid, eos_id=-1, num_pages=28 + 5 * 6, **sizes)
    with pytest.raises(ValueError, match="112 tokens need 58 pages: the pool has 57 to give"):
        small.submit("long", prompt, NUM_NEW)


def test_the_step_is_in_place(hybrid: PagedModel) -> None:
    cache = hybrid.make_cache(4096, 16)
    zeros = np.zeros((6, 4), np.int32)
    inputs = StepInputs(
        *(zeros[0], zeros[0], zeros - 1),
        *(np.zeros((6, 2, 8), np.int32), np.zeros(3, np.int32), np.zeros(2, np.int32)),
    )
    step = jax.jit(_step, static_argnums=(0, 1, 2), donate_argnums=4)
    static = hybrid.family, hybrid.config, hybrid.places
    assert_in_place(
        jax.jit(
            lambda weights, cache, inputs: step(*static, weights, cache, inputs), donate_argnums=1
        ),
        *(hybrid.weights, cache, inputs),
    )


# Files


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    path = write_tiny_gemma3(tmp_path / "a.gguf", leave_out="blk.3.attn_k_norm.weight")
    with pytest.raises(ModelFileError, match=r"has no tensor 'blk\.3\.attn_k_norm\.weight'"):
        load_model(ModelFile(path))


def test_norms_and_rows_are_as_in_the_file(hybrid: PagedModel) -> None:
    """The converter has added Gemma's 1 to the norms, and does not permute the rows of rope."""
    tensors, layers = random_tensors(), hybrid.weights.layers
    np.testing.assert_array_equal(layers.query_norm[2], tensors["blk.2.attn_q_norm.weight"])
    np.testing.assert_array_equal(layers.post_ffn_norm[2], tensors["blk.2.post_ffw_norm.weight"])
    names = [f"blk.2.attn_{name}.weight" for name in "qkv"]
    np.testing.assert_array_equal(layers.qkv[2], np.concatenate([tensors[n] for n in names]))
