"""Registers the FFI targets with JAX, at the first use of an op and once."""

import functools
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import jax

from pagedkv import _ffi_cpu

_XLA_NAMES = {"cpu": "cpu", "cuda": "CUDA"}  # what XLA calls the platforms that JAX lowers for


@functools.cache
def register_targets() -> None:
    """Makes the FFI targets of pagedkv known to JAX's CPU and CUDA backends.

    Those for CUDA if pagedkv was built with them (`docs/cuda.md`); there need be no GPU. Every op
    calls this when it is traced. Call it yourself only before you run a program that was exported or
    compiled in another process. Further calls do nothing.

    Raises:
      RuntimeError: If the installed jaxlib has an older XLA FFI API than pagedkv was built with.

    Example:
      >>> from pagedkv import ops
      >>> ops.register_targets()
    """
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")
    runtime = read_api_version(header.read_text())
    for platform, module in extensions().items():
        check_runtime(module.api_version(), runtime)
        for name, handler in module.registrations().items():
            jax.ffi.register_ffi_target(name, handler, platform=_XLA_NAMES[platform])


@functools.cache
def platforms_of(target: str) -> tuple[str, ...]:
    """The platforms that have a handler for ``target``, as `jax.lax.platform_dependent` names them."""
    return tuple(
        platform for platform, module in extensions().items() if target in module.registrations()
    )


@functools.cache
def extensions() -> dict[str, ModuleType]:
    """By platform the module with its handlers. That for CUDA is there if nvcc was at build time."""
    found: dict[str, ModuleType] = {"cpu": _ffi_cpu}
    if importlib.util.find_spec("pagedkv._ffi_cuda") is not None:
        found["cuda"] = importlib.import_module("pagedkv._ffi_cuda")
    return found


def read_api_version(header: str) -> tuple[int, int]:
    """(major, minor) of the XLA FFI API whose `c_api.h` has the text `header`."""

    def number(name: str) -> int:
        found = re.search(rf"^#define {name} (\d+)$", header, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"[register_targets] {name} is not in the c_api.h of jaxlib")
        return int(found[1])

    return number("XLA_FFI_API_MAJOR"), number("XLA_FFI_API_MINOR")


def check_runtime(built: tuple[int, int], runtime: tuple[int, int]) -> None:
    """Refuses a runtime that would refuse us, and would take its CPU backend down with it."""
    if built[0] == runtime[0] and built[1] <= runtime[1]:
        return
    raise RuntimeError(
        f"[register_targets] pagedkv was built with XLA FFI API {built[0]}.{built[1]}, which the "
        f"{runtime[0]}.{runtime[1]} of the installed jaxlib cannot load; install pagedkv anew in "
        "this environment, or a newer jaxlib"
    )
