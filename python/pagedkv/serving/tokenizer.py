"""Text to tokens and back, as the model's own GGUF file says."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import jinja2.sandbox
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.decoders import DecodeStream

from .model_files import ModelFile, ModelFileError

TokenArray = np.ndarray[Any, np.dtype[np.int32]]

CONTROL_TOKEN = 3  # tokenizer.ggml.token_type: markers such as <|im_end|>


class Message(TypedDict):
    role: str
    content: str


class ChatTokenizer:
    """Byte-level BPE with the pre-tokenizer ``smollm``, and the chat template of the file.

    Raises:
      ModelFileError: If the file's tokenizer is of another kind.
    """

    def __init__(self, file: ModelFile) -> None:
        kind = file.require("tokenizer.ggml.model"), file.require("tokenizer.ggml.pre")
        if kind != ("gpt2", "smollm"):
            raise ModelFileError(
                f"[ChatTokenizer] {file.path} has tokenizer {'/'.join(kind)}: "
                "only 'gpt2/smollm' is supported"
            )
        self.eos_id = int(file.require("tokenizer.ggml.eos_token_id"))
        self._tokenizer = _build_bpe(
            file.require("tokenizer.ggml.tokens"),
            file.require("tokenizer.ggml.token_type"),
            file.require("tokenizer.ggml.merges"),
        )
        template = file.require("tokenizer.chat_template")
        self._template = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(template)

    def encode(self, text: str) -> TokenArray:
        """Returns int32 ``[n]``. Markers such as ``<|im_end|>`` in the text become one token."""
        return np.array(self._tokenizer.encode(text).ids, np.int32)

    def encode_chat(self, messages: Sequence[Message]) -> TokenArray:
        """Returns the tokens of a conversation, up to where the assistant is to speak."""
        return self.encode(self._template.render(messages=messages, add_generation_prompt=True))

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text, without markers."""
        return self._tokenizer.decode(list(tokens))

    def stream(self) -> Callable[[int], str]:
        """Returns a function from the next token to the text it completes.

        That is empty while the token ends in the middle of a character.
        """
        stream = DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(self._tokenizer, token) or ""


def _build_bpe(tokens: list[str], types: list[int], merges: list[str]) -> Tokenizer:
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
    markers = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(m, special=True, normalized=False) for m in markers])
    return tokenizer
