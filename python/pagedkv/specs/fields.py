"""Reads the fields of a model config, whatever it is made of: a dict, an object, nested."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

_TEXT_CONFIGS = ("text_config", "llm_config", "language_config")


class Fields:
    """The fields of one config, or of one of its layers. A field that is None is not there."""

    def __init__(self, config: Any, overrides: Mapping[str, Any] | None = None) -> None:
        self._config = config
        self._overrides = overrides or {}

    def get(self, name: str) -> Any:
        """The value of a field, or None."""
        if name in self._overrides:
            return self._overrides[name]
        if isinstance(self._config, Mapping):
            return self._config.get(name)
        try:
            return getattr(self._config, name, None)
        except RuntimeError:  # how transformers refuses a field that differs between layers
            return None

    def first(self, *names: str) -> Any:
        """The first of the fields that is there, or None."""
        return next((value for name in names if (value := self.get(name)) is not None), None)

    def size(self, *names: str) -> int | None:
        """The first of the fields that is there, an integer of at least 1, or None.

        Raises:
          TypeError: If the field is no integer.
          ValueError: If it is below 1.
        """
        for name in names:
            value = self.get(name)
            if value is not None:
                return checked_size(name, value)
        return None

    def required_size(self, *names: str) -> int:
        """The first of the fields that is there, an integer of at least 1.

        Raises:
          TypeError: If the field is no integer.
          ValueError: If none is there, or it is below 1.
        """
        value = self.size(*names)
        if value is None:
            raise ValueError(message(f"the config must have {' or '.join(names)}, and has not"))
        return value

    def sequence(self, name: str) -> list[Any] | None:
        """The items of a field, or None; an empty sequence counts as not there.

        Raises:
          TypeError: If the field is something else.
        """
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError(message(f"{name} must be a list, got {value!r}"))
        return list(value) or None

    def of_layer(self, index: int) -> "Fields":
        """The fields of one layer, where `per_layer_config` says how layers differ."""
        layers = self.get("per_layer_config")
        if isinstance(layers, Mapping):
            own = (own for key, own in layers.items() if int(key) == index)
            return Fields(self._config, next(own, None))
        if isinstance(layers, Sequence) and index < len(layers):
            return Fields(layers[index])
        return self


def text_fields(config: Any) -> Fields:
    """The fields of the part of `config` that generates text."""
    get_text_config = getattr(config, "get_text_config", None)
    if callable(get_text_config):
        return Fields(get_text_config())
    fields = Fields(config)
    if fields.first("num_hidden_layers", "layer_types") is not None:
        return fields
    inner = fields.first(*_TEXT_CONFIGS)
    return fields if inner is None else Fields(inner)


def checked_size(name: str, value: Any) -> int:
    """`value` if it is an integer of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(message(f"{name} must be an int, got {value!r}"))
    size = operator.index(value)
    if size < 1:
        raise ValueError(message(f"{name} must be >= 1, got {size}"))
    return size


def said(name: str, size: int | None) -> int:
    """What the caller says of a field that the config has not."""
    if size is None:
        raise ValueError(message(f"the config must have {name}, and has not"))
    return size


def message(text: str) -> str:
    """A message of the only function that users call."""
    return f"[create_kv_cache_specs_from_config] {text}"
