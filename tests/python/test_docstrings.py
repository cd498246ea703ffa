"""Every example in a docstring runs and gives what it says."""

import doctest
import importlib

import pytest

MODULES = [
    "pagedkv.cache",
    "pagedkv.ops._register",
    "pagedkv.ops.gather_pages",
    "pagedkv.ops.write_kv",
    "pagedkv.testing",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
