"""Checks for the tests of programs that hold a paged cache."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from pagedkv.ops._checks import bits

# Of the donated arrays, those smaller than this part of the largest are no pools: step counters,
# token buffers, random keys.
_SMALLEST_POOL = 1 / 16

# "%copy.3 = bf16[64,16,2,64]{3,2,1,0} copy(%p)", or a tuple of types for the asynchronous ones.
_COPY = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>\S+) = (?P<type>[^=]+?) "
    r"(?P<op>(?:copy|all-gather|all-to-all|collective-permute)(?:-start)?)\(",
    re.MULTILINE,
)
_SHAPE = re.compile(r"\w+\[(?P<axes>[\d,]*)\]")

_CAUSES = """\
Usual causes: the pool is not donated (jax.jit(..., donate_argnums=...)); a reshape, a transpose or \
a bitcast between the donated pool and the op; the old pool read in the program that writes it; \
jax.lax.scan with the pool as xs and ys, or sliced by layer, where it should be the carry; a sharded \
pool in an op that is not of pagedkv.ops, outside jax.shard_map; a result of another dtype or sharding."""


@dataclass(frozen=True)
class _Pool:
    """What one device holds of one pool."""

    text: str
    num_bytes: int
    copy_sizes: frozenset[int]  # elements of the results that betray a copy


def assert_in_place(function: Any, *args: Any, pools: Any = None, **kwargs: Any) -> None:
    """Asserts that a jitted function updates its pools in place, with no copy of one.

    Compiles ``function`` for ``args`` and ``kwargs`` and reads the compiled program; nothing runs,
    and no argument is donated. That the memory is the same after a call proves less: XLA can copy
    a pool away and back.

    What it cannot see is a NumPy view of a pool (``np.asarray(pool)``) that is alive at the call:
    JAX then ignores the donation.

    Args:
      function: The result of `jax.jit`.
      *args: Its arguments: arrays or `jax.ShapeDtypeStruct`. Take pools of a realistic size, since
        the temporaries of a step must be smaller than its smallest pool.
      pools: Those of the arguments that must stay in place, as any pytree; for example the cache.
        Without it, the donated arguments, small ones aside.
      **kwargs: Its keyword arguments.

    Raises:
      AssertionError: If a pool is copied, with what was found and the usual causes.
      TypeError: If ``function`` is not jitted.
      ValueError: If ``pools`` has an array that is not among the arguments.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from pagedkv.ops import write_kv
      >>> from pagedkv.testing import assert_in_place
      >>> pool = jnp.zeros([64, 16, 2, 8])
      >>> row = jnp.ones([1, 2, 8])
      >>> write = jax.jit(write_kv, donate_argnums=(0, 1))
      >>> assert_in_place(write, pool, pool, row, row, jnp.int32([5]))
    """
    if not hasattr(function, "lower"):
        raise TypeError("[assert_in_place] function must be the result of jax.jit")
    lowered = function.lower(*args, **kwargs)
    infos = jax.tree.leaves(lowered.args_info)
    chosen = _largest_donated(infos) if pools is None else list(_find(infos, pools))
    if not chosen:
        raise AssertionError(f"[assert_in_place] no argument is donated. {_CAUSES}")

    compiled = lowered.compile()
    # None stands for an argument the program does not use.
    shardings = jax.tree.leaves(compiled.input_shardings, is_leaf=lambda leaf: leaf is None)
    found = [_describe(infos[i], shardings[i]) for i in chosen]
    problems = [
        f"the argument {pool.text} is not donated"
        for i, pool in zip(chosen, found, strict=True)
        if not infos[i].donated
    ]
    problems += _copies(compiled.as_text(), found)
    problems += _memory(compiled.memory_analysis(), found)
    if problems:
        name = getattr(function, "__name__", "function")
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise AssertionError(f"[assert_in_place] {name} is not in place:{lines}\n{_CAUSES}")


def _largest_donated(infos: list[Any]) -> list[int]:
    donated = [i for i, info in enumerate(infos) if info.donated]
    largest = max((math.prod(infos[i].shape) for i in donated), default=0)
    return [i for i in donated if math.prod(infos[i].shape) >= largest * _SMALLEST_POOL]


def _find(infos: list[Any], pools: Any) -> Iterator[int]:
    """The argument that each pool is. Of several alike, the donated first."""
    free = sorted(range(len(infos)), key=lambda i: not infos[i].donated)
    for pool in jax.tree.leaves(pools):
        alike = (i for i in free if (infos[i].shape, infos[i].dtype) == (pool.shape, pool.dtype))
        index = next(alike, None)
        if index is None:
            raise ValueError(
                f"[assert_in_place] pools has {pool.dtype}{list(pool.shape)}, which is not among "
                "the arguments"
            )
        free.remove(index)
        yield index


def _describe(info: Any, sharding: Any) -> _Pool:
    shape = info.shape if sharding is None else sharding.shard_shape(info.shape)
    num_elements = math.prod(shape)
    # The whole pool, as an all-gather gives it, counts too. So does one layer of a stacked pool.
    copy_sizes = {num_elements, math.prod(info.shape)}
    if len(shape) > 4 and shape[0] > 0:
        copy_sizes.add(num_elements // shape[0])
    return _Pool(
        text=f"{info.dtype}{list(info.shape)}",
        num_bytes=num_elements * bits(info.dtype) // 8,
        copy_sizes=frozenset(copy_sizes),
    )


def _copies(program: str, pools: Iterable[_Pool]) -> list[str]:
    sizes = frozenset[int]().union(*(pool.copy_sizes for pool in pools))
    return [
        f"{copy['name']} copies {copy['type']}, the size of a pool or of a layer of it"
        for copy in _COPY.finditer(program)
        if any(_num_elements(shape["axes"]) in sizes for shape in _SHAPE.finditer(copy["type"]))
    ]


def _num_elements(axes: str) -> int:
    return math.prod(int(axis) for axis in axes.split(",") if axis)


def _memory(analysis: Any, pools: list[_Pool]) -> list[str]:
    problems = []
    pool_bytes = sum(pool.num_bytes for pool in pools)
    smallest = min(pool.num_bytes for pool in pools)
    if analysis.alias_size_in_bytes < pool_bytes:
        problems.append(
            f"results share {_size(analysis.alias_size_in_bytes)} with arguments, "
            f"the pools have {_size(pool_bytes)}"
        )
    if analysis.temp_size_in_bytes >= smallest:
        problems.append(
            f"temporaries take {_size(analysis.temp_size_in_bytes)}, "
            f"the smallest pool has {_size(smallest)}"
        )
    return problems


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.2f} MiB"
