from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pagedkv.serving.model_files import ModelFile, ModelFileError
from pagedkv.serving.tokenizer import ChatTokenizer

IM_START, IM_END = 1, 2


@pytest.mark.parametrize(
    "text", ["", " the and", "Über 42 Käse, 漢字 🦊\n\n\ttabs  spaces", "\x00\x7f"]
)
def test_decode_gives_the_text_back(tokenizer: ChatTokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.int32
    assert tokenizer.decode(tokens.tolist()) == text


def test_merges_words_and_splits_digits(tokenizer: ChatTokenizer) -> None:
    assert len(tokenizer.encode(" the and")) == 2
    assert len(tokenizer.encode("1234")) == 4


def test_a_marker_is_one_token_and_not_text(tokenizer: ChatTokenizer) -> None:
    assert tokenizer.encode("<|im_end|>").tolist() == [IM_END]
    assert tokenizer.eos_id == IM_END
    assert tokenizer.decode([IM_START, *tokenizer.encode("hi"), IM_END]) == "hi"


def test_chat_ends_where_the_assistant_speaks(tokenizer: ChatTokenizer) -> None:
    tokens = tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    text = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert tokens.tolist() == tokenizer.encode(text).tolist()
    assert tokens[0] == IM_START


def test_stream_waits_for_whole_characters(tokenizer: ChatTokenizer) -> None:
    next_text = tokenizer.stream()
    pieces = [next_text(token) for token in tokenizer.encode("a漢🦊").tolist()]
    assert pieces == ["a", "", "", "漢", "", "", "", "🦊"]


def test_other_pre_tokenizer_is_refused(tmp_path: Path, write_llama: Callable[..., Path]) -> None:
    file = ModelFile(write_llama(tmp_path / "a.gguf", pre="qwen2"))
    with pytest.raises(ModelFileError, match="has tokenizer gpt2/qwen2: only 'gpt2/smollm', and"):
        ChatTokenizer(file)
