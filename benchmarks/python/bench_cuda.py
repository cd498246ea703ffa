"""write_kv, gather_into and copy_pages on a GPU, against XLA and against a contiguous copy.

"contiguous" is XLA's copy of as many bytes to one place: as fast as a copy of its size can be. Calls are made many at a time, one after the other in one program. Figures are medians
over rounds in which each rival has its turn. Needs a GPU.

    python benchmarks/python/bench_cuda.py
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from pagedkv.ops import _register, copy_pages, gather_into, write_kv

PAGE_SIZE, HEADS, DIM = 16, 8, 128
MIB = 2**20
CALLS = 50


class Calls:
    """Calls of an op inside one program, on donated memory that it hands from call to call."""

    def __init__(self, op: Callable, carry, *args):
        def step(carry, *args):
            for _ in range(CALLS):
                carry = op(carry, *args)
            return carry

        self.carry, self.args = carry, args
        self.step = jax.jit(step, donate_argnums=0)
        self()

    def __call__(self) -> float:
        """Seconds a call."""
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.step(self.carry, *self.args))
        return (time.perf_counter() - start) / CALLS


def contiguous(num_bytes: int) -> Calls:
    """Each call writes the same words elsewhere, so that XLA can leave none out."""
    words = jnp.ones([num_bytes // 4], jnp.uint32)
    calls = itertools.count()

    def write(memory, words, start):
        return jax.lax.dynamic_update_slice(memory, words, (start + 4 * (next(calls) % CALLS),))

    return Calls(write, jnp.zeros([words.size + 4 * CALLS], jnp.uint32), words, jnp.int32(0))


def our_write(pools, rows, slots):
    return tuple(write_kv(*pools, *rows, slots)[:2])


def xla_write(pools, rows, slots):
    index = (slots // PAGE_SIZE, slots % PAGE_SIZE)
    return tuple(pool.at[index].set(new) for pool, new in zip(pools, rows, strict=True))


def our_gather(carry, ids):
    pages, rows = carry
    return pages, gather_into(pages, ids, rows).rows


def xla_gather(carry, ids):
    pages, _ = carry
    return pages, jax.lax.optimization_barrier(pages.at[ids].get(mode="clip"))


def our_copy(pools, sources, targets):
    return copy_pages(pools, sources, targets).pools


def xla_copy(pools, sources, targets):
    return [pool.at[targets].set(pool.at[sources].get(mode="clip")) for pool in pools]


def report(title: str, num_bytes: int, rivals: dict[str, Calls], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in rivals}
    order = list(rivals)
    for _ in range(rounds):
        order.reverse()  # so that none always follows the same rival
        for name in order:
            times[name].append(rivals[name]())
    line = f"  {title:<24}{num_bytes / MIB:>9,.2f}"
    for samples in times.values():
        median = statistics.median(samples)
        line += f"{median * 1e6:>12,.1f} us {2 * num_bytes / median / 1e9:>7,.0f} GB/s"
    print(line, flush=True)


def make_pools(num_pages: int):
    return tuple(jnp.zeros([num_pages, PAGE_SIZE, HEADS, DIM], jnp.bfloat16) for _ in range(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pages", type=int, default=8192, help="pages of a pool")
    options = parser.parse_args()
    if jax.default_backend() != "gpu" or "cuda" not in _register.extensions():
        sys.exit("bench_cuda: needs a GPU, jax with CUDA, and pagedkv built with nvcc")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; bytes are read and written once")
    print(f"  {'':<24}{'MiB':>9}{'contiguous':>23}{'pagedkv':>23}{'XLA':>23}")
    rng = np.random.default_rng(0)
    row_bytes = HEADS * DIM * 2
    for num_rows in (8, 64, 512, 4096, 16384):
        slots = rng.choice(options.pages * PAGE_SIZE, num_rows, replace=False).astype(np.int32)
        rows = [jnp.ones([num_rows, HEADS, DIM], jnp.bfloat16)] * 2
        num_bytes = 2 * num_rows * row_bytes
        args = (rows, jnp.asarray(slots))
        rivals = {"contiguous": contiguous(num_bytes)}
        rivals["pagedkv"] = Calls(our_write, make_pools(options.pages), *args)
        rivals["XLA"] = Calls(xla_write, make_pools(options.pages), *args)
        report(f"write_kv {num_rows} rows", num_bytes, rivals, options.rounds)
    for num_ids in (8, 64, 512, 2048):
        ids = jnp.asarray(rng.choice(options.pages, num_ids, replace=False).astype(np.int32))
        num_bytes = num_ids * PAGE_SIZE * row_bytes
        rivals = {"contiguous": contiguous(num_bytes)}
        for name, op in (("pagedkv", our_gather), ("XLA", xla_gather)):
            pages = make_pools(options.pages)[0]
            rows = jnp.zeros([num_ids, *pages.shape[1:]], pages.dtype)
            rivals[name] = Calls(op, (pages, rows), ids)
        report(f"gather_into {num_ids} pages", num_bytes, rivals, options.rounds)
    for num_pairs in (1, 8, 64, 512):
        pages = rng.choice(options.pages, 2 * num_pairs, replace=False).astype(np.int32)
        pairs = (jnp.asarray(pages[:num_pairs]), jnp.asarray(pages[num_pairs:]))
        num_bytes = 2 * num_pairs * PAGE_SIZE * row_bytes
        rivals = {"contiguous": contiguous(num_bytes)}
        rivals["pagedkv"] = Calls(our_copy, list(make_pools(options.pages)), *pairs)
        rivals["XLA"] = Calls(xla_copy, list(make_pools(options.pages)), *pairs)
        report(f"copy_pages {num_pairs} pairs", num_bytes, rivals, options.rounds)


if __name__ == "__main__":
    main()
