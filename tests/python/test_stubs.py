"""The checked-in stubs are the ones the built modules give."""

import importlib
from pathlib import Path

import pytest
from nanobind.stubgen import StubGen

PACKAGE = Path(__file__).parents[2] / "python" / "pagedkv"


@pytest.mark.parametrize("name", ["_core", "_ffi_cpu", "_ffi_cuda"])
def test_stub_is_current(name):
    if name == "_ffi_cuda":
        pytest.importorskip("pagedkv._ffi_cuda", reason="built without nvcc")
    module = importlib.import_module(f"pagedkv.{name}")
    generator = StubGen(module)
    generator.put(module)
    assert (PACKAGE / f"{name}.pyi").read_text() == generator.get(), "run `make stubs`"
