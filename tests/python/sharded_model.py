"""A tiny attention model, decoded greedily: over a dp x tp mesh with paged K/V, and dense in NumPy.

As a script it is one of several processes that share the mesh: `sharded_model.py PORT PROCESSES ID`.
It prints what it saw as JSON.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request
from pagedkv.ops import local_ids, paged_attention, write_kv
from pagedkv.testing import assert_in_place

VOCABULARY, WIDTH, LAYERS, HEADS, KV_HEADS, DIM = 64, 32, 3, 8, 4, 16
PAGES, PAGE_SIZE = 512, 4  # pools larger than what a step computes
POOL = P(None, "dp", None, "tp")
# Heads over tp; everything else whole on every device.
WEIGHTS = {
    "embed": P(),
    "head": P(),
    "query": P(None, None, "tp"),
    "key": P(None, None, "tp"),
    "value": P(None, None, "tp"),
    "output": P(None, "tp"),
}


def make_weights():
    rng = np.random.default_rng(0)
    shapes = {
        "embed": (VOCABULARY, WIDTH),
        "head": (VOCABULARY, WIDTH),
        "query": (LAYERS, WIDTH, HEADS, DIM),
        "key": (LAYERS, WIDTH, KV_HEADS, DIM),
        "value": (LAYERS, WIDTH, KV_HEADS, DIM),
        "output": (LAYERS, HEADS, DIM, WIDTH),
    }
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def make_prompts():
    return np.random.default_rng(1).integers(0, VOCABULARY, (4, 6)).tolist()


def decode_dense(num_tokens):
    """The oracle: no cache, no pages, every token computed anew."""
    weights, answers = make_weights(), []
    for prompt in make_prompts():
        tokens = list(prompt)
        for _ in range(num_tokens):
            hidden = weights["embed"][tokens]
            for layer in range(LAYERS):
                q, k, v = (
                    np.einsum("te,ehd->thd", hidden, weights[name][layer])
                    for name in ("query", "key", "value")
                )
                k, v = (np.repeat(x, HEADS // KV_HEADS, axis=1) for x in (k, v))
                scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(DIM)
                scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
                scores = np.exp(scores - scores.max(-1, keepdims=True))
                attended = np.einsum("hts,shd->thd", scores / scores.sum(-1, keepdims=True), v)
                hidden = hidden + np.einsum("thd,hde->te", attended, weights["output"][layer])
            tokens.append(int(np.argmax(weights["head"] @ hidden[-1])))
        answers.append(tokens[len(prompt) :])
    return answers


def step(weights, keys, values, tokens, slots, table, lens):
    """What one device does: its requests, its pages, its heads."""
    pages = keys.shape[1]
    slots, table = (local_ids(slots, pages * PAGE_SIZE, "dp"), local_ids(table, pages, "dp"))
    starts = jnp.arange(tokens.shape[0] + 1, dtype=jnp.int32)

    def layer(carry, inputs):
        (keys, values), hidden = carry
        index, of_layer = inputs
        q, k, v = (
            jnp.einsum("te,ehd->thd", hidden, of_layer[name]) for name in ("query", "key", "value")
        )
        keys, values, num_bad_slots = write_kv(keys, values, k, v, slots, layer=index)
        attended, num_bad_ids = paged_attention(q, keys, values, table, starts, lens, layer=index)
        out = jnp.einsum("thd,hde->te", attended, of_layer["output"])
        return ((keys, values), hidden + jax.lax.psum(out, "tp")), num_bad_slots + num_bad_ids

    layers = {name: array for name, array in weights.items() if name not in ("embed", "head")}
    carry = ((keys, values), weights["embed"][tokens])
    indices = jnp.arange(LAYERS, dtype=jnp.int32)
    ((keys, values), hidden), num_bad = jax.lax.scan(layer, carry, (indices, layers))
    num_bad = jax.lax.psum(num_bad.sum(), "dp")
    return keys, values, of_all(jnp.argmax(hidden @ weights["head"].T, axis=-1)), num_bad


def of_all(tokens):
    """Every process learns all tokens, for its manager."""
    table = jnp.zeros((jax.lax.axis_size("dp"), *tokens.shape), tokens.dtype)
    table = table.at[jax.lax.axis_index("dp")].set(tokens)
    return jax.lax.psum(table, "dp").reshape(-1)


def place(mesh, array, spec):
    """On every process its part."""
    array = np.asarray(array)
    return jax.make_array_from_callback(
        array.shape, NamedSharding(mesh, spec), lambda index: array[index]
    )


def compile_step(mesh):
    rows = P("dp")
    in_specs = (WEIGHTS, POOL, POOL, rows, rows, rows, rows)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=in_specs, out_specs=(POOL, POOL, P(), P()))
    return jax.jit(mapped, donate_argnums=(1, 2))


def decode_paged(mesh, num_tokens):
    """Every process has a manager of its own. They are given the same calls, so they agree."""
    dp = mesh.shape["dp"]
    spec = FullAttentionSpec(
        page_size=PAGE_SIZE, num_kv_heads=KV_HEADS, head_size=DIM, dtype="float32"
    )
    manager = CacheManager(PAGES, [CacheGroupSpec(spec)], max_model_len=64, data_parallel_size=dp)
    prompts = make_prompts()
    requests = [Request(str(i), prompt[:1]) for i, prompt in enumerate(prompts)]
    weights = {name: place(mesh, w, WEIGHTS[name]) for name, w in make_weights().items()}
    shape = (LAYERS, PAGES, PAGE_SIZE, KV_HEADS, DIM)
    pools = [place(mesh, np.zeros(shape, np.float32), POOL) for _ in range(2)]
    run, histories = compile_step(mesh), [prompt[:1] for prompt in prompts]
    for position in range(len(prompts[0]) + num_tokens - 1):
        for i, request in enumerate(requests):
            assert manager.allocate(request, 1, dp_shard=i * dp // len(requests))
        inputs = (
            np.int32([history[-1] for history in histories]),
            manager.slot_mapping(requests, [1] * len(requests)),
            manager.page_table(requests, width=16),
            np.full(len(requests), position + 1, np.int32),
        )
        args = (weights, *pools, *(place(mesh, array, P("dp")) for array in inputs))
        if position == 0:
            assert_in_place(run, *args, pools=pools)
        *pools, tokens, num_bad = run(*args)
        assert int(num_bad.addressable_data(0)) == 0
        for i, token in enumerate(np.asarray(tokens.addressable_data(0)).tolist()):
            manager.commit(requests[i], position + 1)
            if position + 1 < len(prompts[i]):
                token = prompts[i][position + 1]
            histories[i].append(token)
            requests[i].append([token])
    manager.check_invariants()
    return [history[len(prompts[0]) :] for history in histories]


def write_bad_slot(mesh):
    """A slot out of range on the last dp shard alone, with mode="raise". Says what this process saw."""
    keys, values = (place(mesh, np.zeros((8, 1, 4, 1), np.float32), P("dp")) for _ in range(2))
    row = place(mesh, np.ones((2, 4, 1), np.float32), P("dp"))
    slots = place(mesh, np.int32([0, 99]), P("dp"))
    write = jax.shard_map(
        lambda *a: tuple(write_kv(*a, mode="raise")[:2]),
        mesh=mesh,
        in_specs=P("dp"),
        out_specs=P("dp"),
    )
    write = jax.jit(write, donate_argnums=(0, 1))
    try:
        jax.block_until_ready(write(keys, values, row, row, slots))
    except jax.errors.JaxRuntimeError as error:
        outcome = str(error)
    else:
        outcome = "no error"
    return {"outcome": outcome, "pools_are_lost": keys.is_deleted() and values.is_deleted()}


def main(port, num_processes, process_id):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address = f"127.0.0.1:{port}"
    jax.distributed.initialize(address, num_processes, process_id, coordinator_bind_address=address)
    mesh = jax.make_mesh((2, 2), ("dp", "tp"), axis_types=(AxisType.Auto,) * 2)
    seen = {"devices": [jax.local_device_count(), jax.device_count()]}
    seen["tokens"] = decode_paged(mesh, 8)
    seen["bad_slot"] = write_bad_slot(mesh)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
