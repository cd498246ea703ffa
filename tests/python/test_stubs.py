"""The checked-in stubs are the ones the built modules give."""

import importlib
from pathlib import Path

import pytest
from nanobind.stubgen import StubGen

PACKAGE = Path(__file__).parents[2] / "python" / "pagedkv"


@pytest.mark.parametrize("name", ["_core", "_ffi_cpu"])
def test_stub_is_current(name):
    module = importlib.import_module(f"pagedkv.{name}")
    generator = StubGen(module)
    generator.put(module)
    assert (PACKAGE / f"{name}.pyi").read_text() == generator.get(), "run `make stubs`"
