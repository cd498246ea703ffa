"""What the engine asks of a model family. A family is one file, and one line in `models.py`."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .model_files import ModelFile


class ModelConfig(Protocol):
    """The sizes of a model. Hashable: programs are compiled for a config."""

    @property
    def num_layers(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def windows(self) -> tuple[int | None, ...]:
        """How many tokens each layer sees, the token itself among them; None for all."""


class Family(NamedTuple):
    """The functions of a model family. Weights are any pytree."""

    load_config: Callable[[ModelFile], ModelConfig]
    load_weights: Callable[[ModelFile, Any], Any]  # (file, config)
    # (config, weights, tokens [T], positions [T], store, attend) -> (store, hidden [T, width]);
    # `layers.Attend` says what the store and the attention are.
    forward: Callable[..., tuple[Any, Any]]
    logits: Callable[..., Any]  # (config, weights, hidden [..., width]) -> [..., vocab]
