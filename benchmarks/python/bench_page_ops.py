"""write_kv and gather_pages against a memcpy of the same rows, and against XLA.

The memcpy is an FFI handler of its own (benchmarks/cpp/memcpy_ffi.cc, compiled at the start): no
checks, one thread. Calls are made many at a time inside one jitted program, so that a figure is of
the op and not of JAX's dispatch, which all rivals share. Figures are medians over rounds in which
each rival has its turn.

    python benchmarks/python/bench_page_ops.py
"""

import argparse
import ctypes
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from pagedkv.ops import QuantizedPages, gather_into, write_kv

PAGE_SIZE, HEADS, DIM = 16, 8, 128
MIB = 2**20
RIVALS = Path(__file__).parents[1] / "cpp" / "memcpy_ffi.cc"


def register_rivals() -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "memcpy_ffi.so"
        flags = ["-std=c++17", "-O3", "-shared", "-fPIC", "-isystem", jax.ffi.include_dir()]
        subprocess.run(["g++", *flags, str(RIVALS), "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library))
    for name, symbol in (("bench.write", "BenchWriteRows"), ("bench.gather", "BenchGather")):
        handler = jax.ffi.pycapsule(getattr(loaded, symbol))
        jax.ffi.register_ffi_target(name, handler, platform="cpu")


def our_write(pools, key, value, slots):
    return tuple(write_kv(*pools, key, value, slots)[:2])


def memcpy_write(pools, key, value, slots):
    call = jax.ffi.ffi_call(
        "bench.write", tuple(jax.typeof(p) for p in pools), input_output_aliases={1: 0, 2: 1}
    )
    return tuple(call(slots, *pools, key, value))


def xla_write(pools, key, value, slots):
    index = (slots // PAGE_SIZE, slots % PAGE_SIZE)
    return tuple(p.at[index].set(new) for p, new in zip(pools, (key, value), strict=True))


def our_gather(pages, ids, rows):
    return gather_into(pages, ids, rows).rows


def memcpy_gather(pages, ids, rows):
    call = jax.ffi.ffi_call("bench.gather", jax.typeof(rows), input_output_aliases={2: 0})
    return call(pages, ids, rows)


def xla_gather(pages, ids, rows):
    del rows
    return pages.at[ids].get(mode="clip")


class Loop:
    """Calls of an op inside one program, on donated memory that it hands from call to call."""

    def __init__(self, op: Callable, carry, num_calls: int, *args):
        self.carry, self.num_calls, self.args = carry, num_calls, args
        self.step = jax.jit(
            lambda carry, *args: jax.lax.fori_loop(0, num_calls, lambda _, c: op(c, *args), carry),
            donate_argnums=0,
        )
        self()

    def __call__(self) -> float:
        """Seconds a call."""
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.step(self.carry, *self.args))
        return (time.perf_counter() - start) / self.num_calls


class Calls:
    """Calls of a jitted op from Python, each on the donated result of the one before."""

    def __init__(self, op: Callable, carry, *args):
        self.carry, self.args = carry, args
        self.step = jax.jit(op, donate_argnums=0)
        self()

    def __call__(self) -> float:
        """Seconds a call, the median of many."""
        samples = []
        for _ in range(300):
            start = time.perf_counter()
            self.carry = jax.block_until_ready(self.step(self.carry, *self.args))
            samples.append(time.perf_counter() - start)
        return statistics.median(samples)


def race(rivals: dict[str, Any], rounds: int) -> dict[str, float]:
    """Median seconds of a call; and of the ratios to the first rival, round by round."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    order = list(rivals)
    for _ in range(rounds):
        order.reverse()  # so that none always follows the same rival
        for name in order:
            times[name].append(rivals[name]())
    return {name: statistics.median(samples) for name, samples in times.items()} | {
        f"{name} ratio": statistics.median(
            mine / base for mine, base in zip(samples, times["memcpy"], strict=True)
        )
        for name, samples in times.items()
    }


def make_pools(num_bytes: int, dtype):
    """K and V, half of the bytes each, touched once."""
    page_bytes = PAGE_SIZE * HEADS * DIM * jnp.dtype(dtype).itemsize
    shape = (num_bytes // 2 // page_bytes, PAGE_SIZE, HEADS, DIM)
    return tuple(jnp.ones(shape, dtype) for _ in range(2))


def bench_write(sizes: list[int], rounds: int) -> None:
    print(f"\nwrite_kv of rows of {HEADS} x {DIM}, K and V; us a call, and its ratio to the memcpy")
    print(f"  {'dtype':<14}{'rows':>6}{'pool MiB':>10}{'memcpy':>11}{'pagedkv':>20}{'XLA':>24}")
    for dtype in ("bfloat16", "float8_e4m3fn", "int8"):
        for size in sizes:
            for num_rows in (8, 64, 512, 4096):
                rng = np.random.default_rng(0)
                slots = rng.choice(
                    size
                    * MIB
                    // 2
                    // (HEADS * DIM * jnp.dtype(dtype).itemsize)
                    // PAGE_SIZE
                    * PAGE_SIZE,
                    num_rows,
                    replace=False,
                )
                slots = jnp.asarray(slots.astype(np.int32))
                row = jnp.ones([num_rows, HEADS, DIM], dtype)
                num_calls = max(4, 4096 // num_rows)
                rivals = {}
                for name, op in (("memcpy", memcpy_write), ("pagedkv", our_write)):
                    rivals[name] = Loop(
                        op, make_pools(size * MIB, dtype), num_calls, row, row, slots
                    )
                if size == sizes[0] and num_rows == 8:  # elsewhere it takes seconds a call
                    rivals["XLA"] = Loop(
                        xla_write, make_pools(size * MIB, dtype), 2, row, row, slots
                    )
                found = race(rivals, rounds)
                line = f"  {dtype:<14}{num_rows:>6}{size:>10}{found['memcpy'] * 1e6:>11,.2f}"
                for name in list(rivals)[1:]:
                    line += f"{found[name] * 1e6:>14,.2f} {found[name + ' ratio']:>8,.2f}x"
                print(line, flush=True)


def bench_calls(rounds: int) -> None:
    print("\nwrite_kv as one jitted call a write, 64 MiB of bf16: what a caller of few rows sees")
    for num_rows in (8, 64):
        slots = jnp.arange(num_rows, dtype=jnp.int32) * 37
        row = jnp.ones([num_rows, HEADS, DIM], jnp.bfloat16)
        rivals = {
            name: Calls(op, make_pools(64 * MIB, "bfloat16"), row, row, slots)
            for name, op in (("memcpy", memcpy_write), ("pagedkv", our_write))
        }
        found = race(rivals, rounds)
        print(
            f"  {num_rows:>5} rows  memcpy {found['memcpy'] * 1e6:>8,.2f} us  "
            f"pagedkv {found['pagedkv'] * 1e6:>8,.2f} us {found['pagedkv ratio']:>8,.2f}x"
        )


def bench_quantized(rounds: int) -> None:
    print("\nwrite_kv that quantises bf16 rows; us a call, and its ratio to a memcpy of these rows")
    for num_rows in (8, 512):
        pools = make_pools(64 * MIB, "bfloat16")
        rng = np.random.default_rng(0)
        num_slots = pools[0].shape[0] * PAGE_SIZE
        slots = jnp.asarray(rng.choice(num_slots, num_rows, replace=False).astype(np.int32))
        row = jax.random.normal(jax.random.key(0), [num_rows, HEADS, DIM], jnp.bfloat16)
        num_calls = max(4, 4096 // num_rows)
        rivals = {"memcpy": Loop(memcpy_write, pools, num_calls, row, row, slots)}
        for dtype in ("int8", "float8_e4m3fn"):
            for granularity in ("token", "page", "static"):
                pool = tuple(
                    QuantizedPages.zeros(pools[0].shape, dtype, granularity=granularity)
                    for _ in range(2)
                )
                name = f"{dtype} {granularity}"
                rivals[name] = Loop(our_write, pool, num_calls, row, row, slots)
        found = race(rivals, rounds)
        for name in rivals:
            print(
                f"  {num_rows:>5} rows  {name:<22}{found[name] * 1e6:>11,.2f} us "
                f"{found[name + ' ratio']:>8,.2f}x"
            )


def bench_gather(rounds: int) -> None:
    print("\ngather into a donated buffer, random pages of 32 KiB of a 1 GiB bf16 pool; us a call")
    pages = make_pools(2048 * MIB, "bfloat16")[0]
    rng = np.random.default_rng(0)
    for num_ids in (8, 32, 256, 2048):
        ids = jnp.asarray(rng.choice(pages.shape[0], num_ids, replace=False).astype(np.int32))
        rivals = {}
        for name, op in (("memcpy", memcpy_gather), ("pagedkv", our_gather), ("XLA", xla_gather)):
            rows = jnp.zeros([num_ids, *pages.shape[1:]], jnp.bfloat16)
            rivals[name] = Loop(
                lambda rows, pages, ids, op=op: op(pages, ids, rows), rows, 16, pages, ids
            )
        found = race(rivals, rounds)
        size = num_ids * PAGE_SIZE * HEADS * DIM * 2
        for name in rivals:
            print(
                f"  {size // 1024:>7} KiB  {name:<10}{found[name] * 1e6:>11,.1f} us "
                f"{size / found[name] / 1e9:>8,.1f} GB/s "
                f"{1 / found[name + ' ratio']:>8,.2f} of the memcpy's speed"
            )


def bench_overhead(rounds: int) -> None:
    print(
        "\n60 writes of one row in one program, pools of 30 layers: trace, lower, compile, a call"
    )
    row = jnp.ones([1, HEADS, DIM], jnp.bfloat16)
    slots = jnp.int32([5])

    def program(op):
        def step(pools):
            return [op(op(pair, row, row, slots), row, row, slots) for pair in pools]

        return step

    phases: dict[str, list[list[float]]] = {"bare ffi_call": [], "pagedkv": []}
    for _ in range(rounds):
        for name, op in (("bare ffi_call", memcpy_write), ("pagedkv", our_write)):
            jax.clear_caches()
            pools = [make_pools(MIB, "bfloat16") for _ in range(30)]
            times = [time.perf_counter()]
            traced = jax.jit(program(op), donate_argnums=0).trace(pools)
            times.append(time.perf_counter())
            lowered = traced.lower()
            times.append(time.perf_counter())
            compiled = lowered.compile()
            times.append(time.perf_counter())
            pools = jax.block_until_ready(compiled(pools))
            calls = []
            for _ in range(100):
                start = time.perf_counter()
                pools = jax.block_until_ready(compiled(pools))
                calls.append(time.perf_counter() - start)
            durations = [end - start for start, end in itertools.pairwise(times)]
            phases[name].append([*durations, statistics.median(calls)])
    for name, samples in phases.items():
        trace, lower, compile_, call = (
            statistics.median(column) for column in zip(*samples, strict=True)
        )
        print(
            f"  {name:<14} trace {trace * 1e3:>7.1f} ms  lower {lower * 1e3:>7.1f} ms  "
            f"compile {compile_ * 1e3:>7.1f} ms  call {call * 1e6:>8.1f} us"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[30, 512, 4096], help="MiB of a pool"
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"command   python {' '.join(sys.argv)}")
    print(f"machine   {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"versions  python {platform.python_version()}, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, {jax.default_backend()}"
    )
    register_rivals()
    bench_write(options.sizes, options.rounds)
    bench_calls(options.rounds)
    bench_quantized(options.rounds)
    bench_gather(options.rounds)
    bench_overhead(options.rounds)


if __name__ == "__main__":
    main()
