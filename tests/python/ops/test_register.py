"""Registration happens once, and only where the runtime can load the handlers."""

import subprocess
import sys

import jax
import pytest
from pagedkv import _ffi_cpu
from pagedkv.ops import _register, register_targets


def test_registers_once():
    register_targets()
    before = _register.register_targets.cache_info().misses
    register_targets()
    assert _register.register_targets.cache_info().misses == before == 1


def test_import_registers_nothing():
    # Another process: in this one other tests have used the ops already.
    program = (
        "import pagedkv.ops._register as r, pagedkv.kv_pool\n"
        "assert r.register_targets.cache_info().misses == 0\n"
        "import jax.numpy as jnp\n"
        "pagedkv.ops.gather_pages(jnp.zeros([1, 1, 1, 1]), jnp.int32([0]))\n"
        "assert r.register_targets.cache_info().misses == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_targets_carry_a_version():
    assert set(_ffi_cpu.registrations()) == {
        "pagedkv.write_kv.v2",
        "pagedkv.write_kv_quantized.v1",
        "pagedkv.gather_pages.v2",
        "pagedkv.gather_dequantized.v1",
        "pagedkv.gather_into.v1",
        "pagedkv.gather_through.v1",
        "pagedkv.scatter_pages.v1",
        "pagedkv.copy_pages.v1",
        "pagedkv.pages_to_rows.v1",
        "pagedkv.rows_to_pages.v1",
        "pagedkv.paged_attention.v2",
    }


def test_reads_the_version_of_the_installed_jaxlib():
    header = f"{jax.ffi.include_dir()}/xla/ffi/api/c_api.h"
    with open(header) as file:
        runtime = _register.read_api_version(file.read())
    assert runtime >= _ffi_cpu.api_version() >= (0, 1)


def test_refuses_a_header_without_a_version():
    with pytest.raises(RuntimeError, match=r"XLA_FFI_API_MAJOR is not in the c_api.h of jaxlib"):
        _register.read_api_version("#define XLA_FFI_API_MINOR 3\n")


@pytest.mark.parametrize(("built", "runtime"), [((0, 3), (0, 3)), ((0, 3), (0, 5))])
def test_accepts_the_same_and_newer_runtimes(built, runtime):
    _register.check_runtime(built, runtime)


@pytest.mark.parametrize(
    ("built", "runtime"), [((0, 3), (0, 2)), ((0, 3), (1, 3)), ((1, 0), (0, 9))]
)
def test_refuses_older_runtimes_and_other_majors(built, runtime):
    text = (
        rf"\[register_targets\] pagedkv was built with XLA FFI API {built[0]}\.{built[1]}, which "
        rf"the {runtime[0]}\.{runtime[1]} of the installed jaxlib cannot load"
    )
    with pytest.raises(RuntimeError, match=text):
        _register.check_runtime(built, runtime)
