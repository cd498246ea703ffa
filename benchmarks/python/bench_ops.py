"""The ops against XLA: its scatter, its gather, and attention by gather and einsum.

Every round times each rival in turn, so that a busy machine hits all of them alike; the figures
are medians over the rounds. Pools that are written are bf16 and donated; K has one half of the
bytes and V the other, and one call writes both.

    python benchmarks/python/bench_ops.py
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from pagedkv.ops import gather_pages, paged_attention, write_kv

PAGE_SIZE, HEADS, DIM = 16, 8, 128
PAGE_BYTES = PAGE_SIZE * HEADS * DIM * 2
NUM_ROWS = 8
MIB = 2**20


def ours(key_pages, value_pages, key, value, slots):
    return write_kv(key_pages, value_pages, key, value, slots)[:2]


def xla_scatter(key_pages, value_pages, key, value, slots):
    index = (slots // PAGE_SIZE, slots % PAGE_SIZE)
    return key_pages.at[index].set(key), value_pages.at[index].set(value)


def our_gather(pages, ids):
    return gather_pages(pages, ids).rows


def xla_gather(pages, ids):
    return pages.at[ids].get(mode="clip")


def take(pages, ids):
    return jnp.take(pages, ids, axis=0)


def our_attention(query, keys, values, page_table, query_starts, context_lens):
    return paged_attention(query, keys, values, page_table, query_starts, context_lens).output


def xla_attention(query, keys, values, page_table, query_starts, context_lens):
    """As many query tokens for each request: XLA needs a rectangle."""
    num_requests, kv_heads, dim = len(context_lens), keys.shape[2], keys.shape[3]
    grouped = query.reshape(num_requests, -1, kv_heads, query.shape[1] // kv_heads, dim)
    rows = [
        pages.at[page_table].get(mode="clip").reshape(num_requests, -1, kv_heads, dim)
        for pages in (keys, values)
    ]
    length = grouped.shape[1]
    positions = context_lens[:, None] - length + jnp.arange(length)
    visible = jnp.arange(rows[0].shape[1]) <= positions[..., None]
    scores = jnp.einsum("bqkgd,bskd->bkgqs", grouped, rows[0]) * dim**-0.5
    weights = jax.nn.softmax(jnp.where(visible[:, None, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bkgqs,bskd->bqkgd", weights, rows[1]).reshape(query.shape)


def seconds(function: Callable, num_calls: int) -> float:
    """Median seconds of a call, after some that warm the caches up."""
    for _ in range(1 + num_calls // 4):
        function()
    samples = []
    for _ in range(num_calls):
        start = time.perf_counter()
        function()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


class Writer:
    """A jitted write with its donated pools, called as a decode loop calls it."""

    def __init__(self, write, num_pool_bytes: int):
        num_pages = num_pool_bytes // 2 // PAGE_BYTES
        shape = (num_pages, PAGE_SIZE, HEADS, DIM)
        self.pools = tuple(jnp.zeros(shape, jnp.bfloat16) for _ in range(2))
        self.row = jnp.ones([NUM_ROWS, HEADS, DIM], jnp.bfloat16)
        rng = np.random.default_rng(0)
        slots = rng.choice(num_pages * PAGE_SIZE, NUM_ROWS, replace=False)
        self.slots = jnp.asarray(slots.astype(np.int32))
        self.write = jax.jit(write, donate_argnums=(0, 1))
        self()

    def __call__(self):
        self.pools = self.write(*self.pools, self.row, self.row, self.slots)
        jax.block_until_ready(self.pools)


class Gatherer:
    def __init__(self, gather, pages, ids):
        self.gather = jax.jit(gather)
        self.pages, self.ids = pages, ids
        self()

    def __call__(self):
        jax.block_until_ready(self.gather(self.pages, self.ids))


class Attender:
    """Each request has the newest tokens of a context in its own random pages."""

    def __init__(self, attend, num_requests, context, num_queries, heads, kv_heads, dim):
        pages_each = context // PAGE_SIZE
        num_pages = num_requests * pages_each + 1
        keys = jax.random.split(jax.random.key(0), 3)
        pool = (num_pages, PAGE_SIZE, kv_heads, dim)
        table = 1 + np.random.default_rng(0).permutation(num_pages - 1)
        self.arguments = (
            jax.random.normal(keys[0], (num_requests * num_queries, heads, dim)),
            jax.random.normal(keys[1], pool),
            jax.random.normal(keys[2], pool),
            jnp.asarray(table.reshape(num_requests, pages_each), jnp.int32),
            jnp.arange(num_requests + 1, dtype=jnp.int32) * num_queries,
            jnp.full(num_requests, context, jnp.int32),
        )
        self.attend = jax.jit(attend)
        self()

    def __call__(self):
        return jax.block_until_ready(self.attend(*self.arguments))


def race(rivals: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median over the rounds of the median call of each. Short calls are made often in a round."""
    num_calls = {name: 200 if seconds(f, 3) < 2e-3 else 1 for name, f in rivals.items()}
    times: dict[str, list[float]] = {name: [] for name in rivals}
    order = list(rivals.items())
    for _ in range(rounds):
        order.reverse()  # so that none always follows the same rival
        for name, function in order:
            times[name].append(seconds(function, num_calls[name]))
    return {name: statistics.median(samples) for name, samples in times.items()}


def row(name: str, value: float, base: float) -> None:
    print(f"  {name:<34} {value * 1e6:>14,.1f} us {value / base:>12,.2f} x")


def bench_write(sizes: list[int], rounds: int) -> None:
    print(f"\nwrite_kv, {NUM_ROWS} rows of {HEADS} x {DIM} bf16; pool = K and V, half each")
    writers = {}
    for size in sizes:
        writers[f"pagedkv, {size} MiB"] = Writer(ours, size * MIB)
    for size in sizes:
        writers[f"XLA .at[].set, {size} MiB"] = Writer(xla_scatter, size * MIB)
    medians = race(writers, rounds)
    base = medians[f"pagedkv, {sizes[0]} MiB"]
    for name, value in medians.items():
        row(name, value, base)
    small, large = sizes[0], sizes[-1]
    growth = medians[f"pagedkv, {large} MiB"] / base
    gain = medians[f"XLA .at[].set, {large} MiB"] / medians[f"pagedkv, {large} MiB"]
    print(f"  pagedkv, {large} MiB against {small} MiB: {growth:.2f} x")
    print(f"  XLA against pagedkv at {large} MiB: {gain:,.0f} x")


def bench_gather(rounds: int) -> None:
    print("\ngather_pages, random pages of 32 KiB out of a 1 GiB bf16 pool, fresh result")
    num_pages = 1024 * MIB // PAGE_BYTES
    pages = jnp.zeros([num_pages, PAGE_SIZE, HEADS, DIM], jnp.bfloat16)
    rng = np.random.default_rng(0)
    for num_ids in (32, 512):
        ids = jnp.asarray(rng.choice(num_pages, num_ids, replace=False).astype(np.int32))
        label = f"{num_ids * PAGE_BYTES // MIB} MiB"
        rivals = {
            f"pagedkv, {label}": Gatherer(our_gather, pages, ids),
            f"XLA .at[].get(clip), {label}": Gatherer(xla_gather, pages, ids),
            f"XLA jnp.take, {label}": Gatherer(take, pages, ids),
        }
        medians = race(rivals, rounds)
        base = medians[f"pagedkv, {label}"]
        for name, value in medians.items():
            row(name, value, base)


def bench_attention(rounds: int) -> None:
    for name, sizes in {
        "decode 16 x 512, heads 9/3 x 64": (16, 512, 1, 9, 3, 64),
        "decode 8 x 2048, heads 32/8 x 128": (8, 2048, 1, 32, 8, 128),
        "prefill 256 of 512, heads 9/3 x 64": (1, 512, 256, 9, 3, 64),
    }.items():
        print(f"\npaged_attention, f32, {name}")
        rivals = {
            "pagedkv": Attender(our_attention, *sizes),
            "XLA gather + einsum": Attender(xla_attention, *sizes),
        }
        difference = jnp.abs(rivals["pagedkv"]() - rivals["XLA gather + einsum"]()).max()
        medians = race(rivals, rounds)
        for rival, value in medians.items():
            row(rival, value, medians["pagedkv"])
        print(f"  largest difference of an element: {difference:.1e}")


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 2048], help="MiB of a pool")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    print(f"command   python {' '.join(sys.argv)}")
    print(f"machine   {cpu_model()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"versions  python {platform.python_version()}, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, {jax.default_backend()}"
    )
    bench_write(options.sizes, options.rounds)
    bench_gather(options.rounds)
    bench_attention(options.rounds)


if __name__ == "__main__":
    main()
