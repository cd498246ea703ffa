"""Text to tokens and back, as the model's own GGUF file says."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import jinja2.sandbox
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.decoders import DecodeStream

from .model_files import ModelFile, ModelFileError

TokenArray = np.ndarray[Any, np.dtype[np.int32]]

# tokenizer.ggml.token_type
NORMAL_TOKEN = 1
CONTROL_TOKEN = 3  # markers such as <|im_end|>
USER_DEFINED_TOKEN = 4  # texts that are one token wherever they are

SPACE = "\u2581"  # what SentencePiece writes for a space

# For a model that is not trained on chats: a text, which it goes on with.
PLAIN_TEMPLATE = (
    "{% for m in messages %}"
    "{{ {'system': '', 'user': 'Question: ', 'assistant': 'Answer: '}[m.role] + m.content }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
)


class Message(TypedDict):
    role: str
    content: str


class ChatTokenizer:
    """The tokenizer of a file, and its chat template; a plain one if it has none.

    Either of two kinds: byte-level BPE with the pre-tokenizer ``smollm``, or SentencePiece's BPE.

    Raises:
      ModelFileError: If the file's tokenizer is of another kind.
    """

    def __init__(self, file: ModelFile) -> None:
        self._tokenizer = _build(file)
        self.eos_id = int(file.require("tokenizer.ggml.eos_token_id"))
        bos_id = file.metadata.get("tokenizer.ggml.bos_token_id")
        self._bos = "" if bos_id is None else file.require("tokenizer.ggml.tokens")[bos_id]
        template = file.metadata.get("tokenizer.chat_template")
        if template is None:
            has_bos = file.metadata.get("tokenizer.ggml.add_bos_token", False)
            template = "{{ bos_token }}" * has_bos + PLAIN_TEMPLATE
        # The whitespace that Hugging Face writes its templates for.
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True
        )
        self._template = environment.from_string(template)

    def encode(self, text: str) -> TokenArray:
        """Returns int32 ``[n]``. Markers such as ``<|im_end|>`` in the text become one token.

        None is added, not at the beginning either.
        """
        return np.array(self._tokenizer.encode(text).ids, np.int32)

    def encode_chat(self, messages: Sequence[Message]) -> TokenArray:
        """Returns the tokens of a conversation, up to where the assistant is to speak."""
        text = self._template.render(
            messages=messages, add_generation_prompt=True, bos_token=self._bos
        )
        return self.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text, without markers."""
        return self._tokenizer.decode(list(tokens))

    def stream(self) -> Callable[[int], str]:
        """Returns a function from the next token to the text it completes.

        That is empty while the token ends in the middle of a character.
        """
        stream = DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(self._tokenizer, token) or ""


def _build(file: ModelFile) -> Tokenizer:
    kind = file.require("tokenizer.ggml.model")
    pre = file.metadata.get("tokenizer.ggml.pre", "default")
    tokens, types = (file.require(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    if (kind, pre) == ("gpt2", "smollm"):
        tokenizer = _build_byte_level(tokens, file.require("tokenizer.ggml.merges"))
    elif kind == "llama" and not file.metadata.get("tokenizer.ggml.add_space_prefix", True):
        scores = file.require("tokenizer.ggml.scores")
        unknown = tokens[file.require("tokenizer.ggml.unknown_token_id")]
        tokenizer = _build_sentencepiece(tokens, types, scores, unknown)
    else:
        raise ModelFileError(
            f"[ChatTokenizer] {file.path} has tokenizer {kind}/{pre}: "
            "only 'gpt2/smollm', and 'llama' without a space prefix, are supported"
        )
    # All at once: the tokenizer builds an automaton of them each time.
    added = {
        kind: [t for t, k in zip(tokens, types, strict=True) if k == kind] for kind in {*types}
    }
    markers, texts = added.get(CONTROL_TOKEN, []), added.get(USER_DEFINED_TOKEN, [])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in markers])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in texts])
    return tokenizer


def _build_byte_level(tokens: list[str], merges: list[str]) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _build_sentencepiece(
    tokens: list[str], types: list[int], scores: list[float], unknown: str
) -> Tokenizer:
    """SentencePiece's BPE: of all neighbours that make a token, the best score is merged first.

    A file has the scores alone, so each way to cut a token in two others becomes a merge. Characters
    that are no token become bytes.
    """
    vocabulary = {token: index for index, token in enumerate(tokens)}
    rank = {
        token: -score
        for token, kind, score in zip(tokens, types, scores, strict=True)
        if kind == NORMAL_TOKEN
    }
    merges = [
        (token[:i], token[i:])
        for token in sorted(rank, key=rank.__getitem__)
        for i in range(1, len(token))
        if token[:i] in rank and token[i:] in rank
    ]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer
