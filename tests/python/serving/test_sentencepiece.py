"""The tokenizer that is built from SentencePiece scores, against the plain algorithm."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv.serving.model_files import ModelFile, ModelFileError
from pagedkv.serving.tokenizer import ChatTokenizer
from tiny_gemma3 import LETTERS, MARKERS, PIECES, TEXTS, TOKENS, write_tiny_gemma3

SPACE = "\u2581"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer(ModelFile(write_tiny_gemma3(tmp_path_factory.mktemp("m") / "a.gguf")))


def merge(text: str) -> list[str]:
    """Merges the neighbours that make the best token, until none do; the rest becomes bytes."""
    rank = {token: i for i, token in enumerate(PIECES + LETTERS)}
    symbols = list(text.replace(" ", SPACE))
    while True:
        pairs = [a + b for a, b in pairwise(symbols)]
        best = min((rank[pair], i) for i, pair in enumerate([*pairs, LETTERS[0]]) if pair in rank)
        if best[1] == len(pairs):
            break
        symbols[best[1] : best[1] + 2] = [pairs[best[1]]]
    return [
        token
        for symbol in symbols
        for token in ([symbol] if symbol in rank else [f"<0x{b:02X}>" for b in symbol.encode()])
    ]


def tokenize(text: str) -> list[str]:
    """Cuts out the texts that are always one token, the longest first, and merges what is between."""
    tokens: list[str] = []
    rest = ""
    while text:
        found = [token for token in MARKERS + TEXTS if text.startswith(token)]
        if found:
            token = max(found, key=len)
            tokens += [*merge(rest), token]
            rest, text = "", text[len(token) :]
        else:
            rest, text = rest + text[0], text[1:]
    return tokens + merge(rest)


def names(tokenizer: ChatTokenizer, text: str) -> list[str]:
    return [TOKENS[token] for token in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("then the and", ["t", "he", "n", "▁the", "▁and"]),
        (" the", ["▁the"]),
        ("x x x", ["<0x78>", "▁", "<0x78>", "▁", "<0x78>"]),
        ("a\n\n\nb", ["a", "\n\n", "\n", "b"]),
        ("a  b   c    d", ["a", "  ", "b", "   ", "c", "   ", "▁", "d"]),
        ("é", ["<0xC3>", "<0xA9>"]),
        ("<b>th<", ["<b>", "th", "<"]),
        ("a<eos>n", ["a", "<eos>", "n"]),
    ],
    ids=["merges", "space", "no_way_to_merge", "newlines", "spaces", "bytes", "texts", "markers"],
)
def test_tokens(tokenizer: ChatTokenizer, text: str, expected: list[str]) -> None:
    assert tokenize(text) == expected
    assert names(tokenizer, text) == expected


@given(text=st.text(alphabet="thean d\n<b>xé🦊", max_size=40))
def test_equals_the_plain_algorithm(tokenizer: ChatTokenizer, text: str) -> None:
    assert names(tokenizer, text) == tokenize(text)
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_stream_waits_for_whole_characters(tokenizer: ChatTokenizer) -> None:
    next_text = tokenizer.stream()
    assert [next_text(t) for t in tokenizer.encode("a🦊 b").tolist()] == [
        *["a", "", "", "", "🦊"],
        *[" ", "b"],
    ]


def test_a_file_without_a_template_gets_a_text_to_go_on_with(tokenizer: ChatTokenizer) -> None:
    chat = tokenizer.encode_chat(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]
    )
    text = "Be kind.\n\nQuestion: Who?\n\nAnswer:"
    bos = TOKENS.index("<bos>")
    np.testing.assert_array_equal(chat, [bos, *tokenizer.encode(text)])
    assert tokenizer.decode(chat.tolist()) == text


def test_a_tokenizer_with_a_space_prefix_is_refused(tmp_path: Path) -> None:
    file = ModelFile(write_tiny_gemma3(tmp_path / "a.gguf", space_prefix=True))
    with pytest.raises(ModelFileError, match=r"tokenizer llama/default: .* without a space prefix"):
        ChatTokenizer(file)
