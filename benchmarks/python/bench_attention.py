"""paged_attention against XLA, PyTorch, and the bandwidth of the memory.

A decode reads each key and value once, so at best it takes as long as reading these bytes: that is
"read", one thread that adds up the pools (benchmarks/cpp/read_bytes.cc, compiled at the start). XLA gathers
the pages and multiplies. PyTorch's `scaled_dot_product_attention` gets K and V back to back, where no
page is to be looked up; it runs if torch can be imported.

Every form is measured with one thread, the process bound to a core, and with all. Each round times
every rival in turn; figures are medians over the rounds. With one thread they are of CPU time, which other
processes on the machine disturb less.

    python benchmarks/python/bench_attention.py
"""

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PAGE_SIZE = 16
READER = Path(__file__).parents[1] / "cpp" / "read_bytes.cc"


class Form(NamedTuple):
    """Requests of one context, each with its newest tokens as queries."""

    name: str
    requests: int
    context: int
    queries: int
    heads: int
    kv_heads: int
    dim: int
    dtype: str = "bfloat16"
    layout: str = "NHD"
    value_dim: int | None = None


FORMS = [
    Form("decode 8 x 2k, 8/8 heads x 128", 8, 2048, 1, 8, 8, 128),
    Form("decode 8 x 2k, 32/8 heads x 128", 8, 2048, 1, 32, 8, 128),
    Form("decode 8 x 2k, 32/8 heads x 128, HND", 8, 2048, 1, 32, 8, 128, layout="HND"),
    Form("decode 8 x 2k, 32/8 heads x 128, f32", 8, 2048, 1, 32, 8, 128, "float32"),
    Form("decode 8 x 2k, 32/8 heads x 128, int8", 8, 2048, 1, 32, 8, 128, "int8"),
    Form("decode 8 x 2k, 32/8 heads x 128, e4m3", 8, 2048, 1, 32, 8, 128, "float8_e4m3fn"),
    Form("decode 1 x 32k, 32/8 heads x 128", 1, 32768, 1, 32, 8, 128),
    Form("decode 8 x 2k, MLA 16 heads x 576/512", 8, 2048, 1, 16, 1, 576, layout="LATENT", value_dim=512),
    Form("decode 8 x 2k, MLA 128 heads x 576/512", 8, 2048, 1, 128, 1, 576, layout="LATENT", value_dim=512),
    Form("prefill 1 x 2k, 32/8 heads x 128", 1, 2048, 2048, 32, 8, 128),
]  # fmt: skip


def make_reader() -> Callable[[int, int], int]:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "read_bytes.so"
        flags = ["-std=c++17", "-O3", "-march=native", "-shared", "-fPIC"]
        subprocess.run(["g++", *flags, str(READER), "-o", str(library)], check=True)
        read = ctypes.CDLL(str(library)).BenchReadBytes
    read.argtypes, read.restype = (ctypes.c_void_p, ctypes.c_size_t), ctypes.c_uint64
    return read


class Bench:
    """The rivals of one form, as functions of no argument that wait for their result."""

    def __init__(self, form: Form, reader: Callable[[int, int], int]):
        import jax
        import jax.numpy as jnp
        import numpy as np
        from pagedkv.ops import QuantizedPages, paged_attention, write_kv

        self.form = form
        rng = np.random.default_rng(0)
        num_pages = form.requests * form.context // PAGE_SIZE
        table = rng.permutation(num_pages).reshape(form.requests, -1).astype(np.int32)
        is_latent = form.layout == "LATENT"
        row = (form.dim,) if is_latent else (form.kv_heads, form.dim)
        is_coded = form.dtype not in ("bfloat16", "float32")
        dtype = jnp.bfloat16 if is_coded else jnp.dtype(form.dtype)
        numbers = [
            jnp.asarray(rng.standard_normal((form.requests * form.context, *row)), dtype)
            for _ in range(1 if is_latent else 2)
        ]
        self.query = jnp.asarray(
            rng.standard_normal((form.requests * form.queries, form.heads, form.dim)), dtype
        )
        shape = (num_pages, PAGE_SIZE, *row)
        if form.layout == "HND":
            shape = (num_pages, form.kv_heads, PAGE_SIZE, form.dim)
        make = (
            (lambda: QuantizedPages.zeros(shape, form.dtype, layout=form.layout))
            if is_coded
            else (lambda: jnp.zeros(shape, dtype))
        )
        slots = (table[..., None] * PAGE_SIZE + np.arange(PAGE_SIZE, dtype=np.int32)).ravel()
        pools = [make() for _ in numbers]
        written = write_kv(*[*pools, None][:2], *[*numbers, None][:2], slots, layout=form.layout)
        self.pools = [pool for pool in written[:2] if pool is not None]
        self.bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.pools))
        starts = jnp.arange(form.requests + 1, dtype=jnp.int32) * form.queries
        lens = jnp.full(form.requests, form.context, jnp.int32)
        batch = (jnp.asarray(table), starts, lens)

        @jax.jit
        def ours(query: Any, pools: Any, batch: Any) -> Any:
            keys, values = [*pools, None][:2]
            return paged_attention(
                query, keys, values, *batch, layout=form.layout, value_dim=form.value_dim
            ).output

        self.rivals: dict[str, Callable[[], Any]] = {
            "pagedkv": lambda: jax.block_until_ready(ours(self.query, self.pools, batch))
        }
        # The pools' own bytes: others could lie in larger pages of virtual memory.
        arrays = jax.block_until_ready(jax.tree.leaves(self.pools))
        self.rivals["read"] = lambda: [
            reader(array.unsafe_buffer_pointer(), array.nbytes) for array in arrays
        ]
        if not is_coded and not is_latent:
            self._add_xla(batch)
            self._add_torch(numbers)

    def _add_xla(self, batch: Any) -> None:
        import jax
        import jax.numpy as jnp

        form = self.form

        @jax.jit
        def xla(query: Any, pools: Any, batch: Any) -> Any:
            table, _, lens = batch
            grouped = query.reshape(form.requests, form.queries, form.kv_heads, -1, form.dim)
            rows = [pool.at[table].get(mode="clip") for pool in pools]
            if form.layout == "HND":
                rows = [jnp.swapaxes(row, 2, 3) for row in rows]
            rows = [row.reshape(form.requests, -1, form.kv_heads, form.dim) for row in rows]
            positions = lens[:, None] - form.queries + jnp.arange(form.queries)
            visible = jnp.arange(form.context) <= positions[..., None]
            scores = jnp.einsum("bqkgd,bskd->bkgqs", grouped, rows[0]) * form.dim**-0.5
            scores = jnp.where(visible[:, None, None], scores, -jnp.inf)
            weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(query.dtype)
            return jnp.einsum("bkgqs,bskd->bqkgd", weights, rows[1]).reshape(query.shape)

        self.rivals["XLA gather + einsum"] = lambda: jax.block_until_ready(
            xla(self.query, self.pools, batch)
        )

    def _add_torch(self, numbers: list[Any]) -> None:
        try:
            import torch
        except ImportError:
            return
        form = self.form
        import numpy as np

        def tensor(array: Any, *shape: int) -> Any:
            numbers = torch.from_numpy(np.asarray(array, np.float32)).to(getattr(torch, form.dtype))
            return numbers.reshape(shape).transpose(1, 2).contiguous()

        query = tensor(self.query, form.requests, form.queries, form.heads, form.dim)
        keys, values = (
            tensor(rows, form.requests, form.context, form.kv_heads, form.dim) for rows in numbers
        )
        torch.set_num_threads(len(os.sched_getaffinity(0)))

        def attend() -> Any:
            return torch.nn.functional.scaled_dot_product_attention(
                query,
                keys,
                values,
                is_causal=form.queries > 1,
                enable_gqa=form.heads != form.kv_heads,
            )

        self.rivals["torch SDPA, contiguous K/V"] = attend

    def race(self, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
        for function in self.rivals.values():
            function()
        times: dict[str, list[float]] = {name: [] for name in self.rivals}
        for _ in range(rounds):
            for name, function in self.rivals.items():
                start = clock()
                function()
                elapsed = clock() - start
                times[name].append(elapsed)
                for _ in range(min(10, int(0.05 / max(elapsed, 1e-6)))):  # short ones more often
                    start = clock()
                    function()
                    times[name].append(clock() - start)
        return {name: statistics.median(samples) for name, samples in times.items()}


def report(bench: Bench, medians: dict[str, float]) -> None:
    form, ours = bench.form, medians["pagedkv"]
    print(f"\n{form.name}: {bench.bytes / 2**20:.1f} MiB of K/V")
    for name, seconds in medians.items():
        rate = bench.bytes / seconds / 1e9
        print(f"  {name:<30} {seconds * 1e3:>10.2f} ms {rate:>7.1f} GB/s {seconds / ours:>8.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="forms with this in their name")
    parser.add_argument("--threads", choices=["one", "all"], help="both without it")
    options = parser.parse_args()
    if options.threads is None:
        for threads in ("one", "all"):
            sys.stdout.flush()
            command = [sys.executable, __file__, *sys.argv[1:], "--threads", threads]
            subprocess.run(command, check=True)
        return
    if options.threads == "one":  # before XLA starts its threads
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import jax

    print(f"\n== {options.threads} thread{'' if options.threads == 'one' else 's'}")
    print(
        f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, python "
        f"{platform.python_version()}, jax {jax.__version__}"
    )
    reader = make_reader()
    for form in FORMS:
        if options.only in form.name:
            bench = Bench(form, reader)
            clock = time.process_time if options.threads == "one" else time.perf_counter
            report(bench, bench.race(options.rounds, clock))


if __name__ == "__main__":
    main()
