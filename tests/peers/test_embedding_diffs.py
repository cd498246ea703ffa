"""The diffs of docs/embedding.md apply to the projects' own files, and what they change still works."""

import ast
import contextlib
import importlib
import json
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import diffs
import easydel_core
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tpu_inference_kernels
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pagedkv.testing import assert_in_place

HERE = Path(__file__).parent
DIFFS = diffs.diffs_of(HERE.parents[1] / "docs" / "embedding.md")
MEMORY_POOL = "sgl_jax/srt/mem_cache/memory_pool.py"
KV_CACHE_MANAGER = "tpu_inference/runner/kv_cache_manager.py"


def wheel_of(path):
    """The wheel that has a file, which the Makefile fetches."""
    if path.startswith("easydel/"):
        return easydel_core.find_wheel()
    if path.startswith("tpu_inference/"):
        return tpu_inference_kernels.find_wheel()
    (wheel,) = (HERE.parents[1] / "build" / "peers").glob("sglang_jax-0.1.0rc0-*.whl")
    return wheel


def before_and_after(path):
    with zipfile.ZipFile(wheel_of(path)) as wheel:
        before = wheel.read(path).decode()
    return before, diffs.apply(DIFFS[path], before)


def defined(source, names, namespace):
    """Functions and constants of a module or its classes, out of their source, by name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            node.decorator_list = [
                decorator
                for decorator in node.decorator_list
                if getattr(decorator, "id", "") != "staticmethod"
            ]
            found.append(node)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in names:
            found.append(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pagedkv"):
            found.append(node)
    module = ast.Module(found, type_ignores=[])
    exec(compile(module, "patched", "exec"), namespace)  # noqa: S102 - the projects' own code
    return types.SimpleNamespace(**{name: namespace[name] for name in names})


PATCHED = sorted(path for path in DIFFS if "/" in path)


def test_every_project_has_a_diff():
    assert {path.split("/")[0] for path in DIFFS} == {
        "easydel", "sgl_jax", "tpu_inference", "cache.py"
    }  # fmt: skip


@pytest.mark.parametrize("path", PATCHED)
def test_diff_applies_and_imports_what_there_is(path):
    before, after = before_and_after(path)
    assert before != after
    imports = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(after))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pagedkv")
        for alias in node.names
    ]
    assert imports
    for module, name in imports:
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


def test_diff_of_another_version_does_not_apply():
    path = "easydel/inference/esurge/scheduler/token_budget.py"
    before, _ = before_and_after(path)
    with pytest.raises(ValueError, match="line"):
        diffs.apply(DIFFS[path], "\n" + before)


def test_easydel_schedules_the_same(tmp_path):
    """Its whole scheduler, on requests that share prefixes and push each other out."""
    roots = [tmp_path / "before", tmp_path / "after"]
    with zipfile.ZipFile(easydel_core.find_wheel()) as wheel:
        names = [name for name in wheel.namelist() if name.startswith("easydel/inference/esurge/")]
        for root in roots:
            wheel.extractall(root, names)
    for path in PATCHED:
        if path.startswith("easydel/"):
            (roots[1] / path).write_text(before_and_after(path)[1])
    script = HERE / "easydel_steps.py"
    before, after = (
        json.loads(subprocess.check_output([sys.executable, script, root])) for root in roots
    )
    assert before.pop("manager").startswith("easydel.")
    assert after.pop("manager").startswith("pagedkv.compat.easydel")
    assert len(before["steps"]) > 20
    assert after == before


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=["bfloat16", "float32"])
def test_sglang_writes_its_rows_in_place(dtype):
    namespace = {"jax": jax, "jnp": jnp, "P": PartitionSpec, "Mesh": Mesh}
    patched = defined(before_and_after(MEMORY_POOL)[1], ["update_fused_kv_cache"], namespace)
    side = 2 if len(jax.devices()) >= 4 else 1
    mesh = Mesh(np.array(jax.devices()[: side * side]).reshape(side, side), ("data", "tensor"))
    pages, page_size, heads, dim = 16, 4, 4, 128
    pack = 4 // dtype.dtype.itemsize
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 1, 2 * heads // pack, pack, dim)).astype(dtype)
    pool = rng.normal(size=(pages, page_size, 2 * heads // pack, pack, dim)).astype(dtype)
    loc = np.int32([5, 6, 7, -1, 9, 4, -1, 30])  # of each rank's own pages
    expected = pool.copy().reshape(side, -1, *pool.shape[2:])
    for i, slot in enumerate(loc):
        if slot >= 0:
            expected[i * side // len(loc), slot] = rows[i, 0]
    spec = PartitionSpec("data", None, "tensor", None, None)
    arrays = [
        jax.device_put(array, NamedSharding(mesh, axes))
        for array, axes in ((rows, spec), (loc, PartitionSpec("data")), (pool, spec))
    ]
    write = jax.jit(
        lambda rows, loc, pool: patched.update_fused_kv_cache(
            rows, loc, pool, page_size=page_size, mesh=mesh
        ),
        donate_argnums=2,
    )
    assert_in_place(write, *arrays, pools=arrays[2])
    np.testing.assert_array_equal(
        np.asarray(write(*arrays)).view(np.uint8), expected.reshape(pool.shape).view(np.uint8)
    )


@pytest.mark.parametrize(
    "shape", [(12, 4, 2, 2, 128), (12, 4, 1, 256)], ids=["FUSED_PACKED", "rank4"]
)
def test_tpu_inference_moves_the_same_pages(shape):
    before, after = before_and_after(KV_CACHE_MANAGER)
    names = [
        "_jitted_gather_kv_cache",
        "_jitted_insert_kv_cache",
        "_jitted_insert_continuous_kv_cache_from_slice",
    ]
    base = {
        "jax": jax,
        "jnp": jnp,
        "List": list,
        "runner_utils": types.SimpleNamespace(LatencyTracker=contextlib.nullcontext),
    }
    theirs_space, ours_space = dict(base), dict(base)
    theirs = defined(before, names, theirs_space)
    theirs_space["KVCacheManager"] = theirs
    ours = defined(after, ["_LAYOUTS", names[0], "_insert_pages"], ours_space)

    rng = np.random.default_rng(0)
    ids = [3, 4, 9, 1]

    def pools():
        rng = np.random.default_rng(1)
        return [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for _ in range(2)]

    for mine, other in zip(
        ours._jitted_gather_kv_cache(pools(), jnp.array(ids)),
        theirs._jitted_gather_kv_cache(pools(), jnp.array(ids)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)
    num_tokens = len(ids) * shape[1] + 3  # slices may be longer than the pages
    slices = [
        jnp.asarray(rng.normal(size=(num_tokens, *shape[2:])), jnp.bfloat16) for _ in range(2)
    ]
    written = ours._insert_pages(pools(), slices, jnp.array(ids))
    expected = theirs._jitted_insert_kv_cache(shape[1], pools(), slices, ids)
    for mine, other, old in zip(written, expected, pools(), strict=True):
        np.testing.assert_array_equal(mine, other)
        assert (np.asarray(mine) != np.asarray(old)).any()
    assert_in_place(ours._insert_pages, pools(), slices, jnp.array(ids))


def test_own_engine_keeps_the_same_rows():
    """The cache before and after the diff serves the same requests; only the second shares."""
    caches = []
    for signs in (" -", " +"):
        namespace = {}
        source = diffs.whole_file(DIFFS["cache.py"], signs.__contains__)
        exec(compile(source, "cache.py", "exec"), namespace)  # noqa: S102 - our own document
        caches.append(namespace["Cache"]())
    before, after = caches
    prompts = {"a": list(range(10)), "b": [*range(8), 50, 51, 52], "c": list(range(30))}
    cached = {}
    for name, tokens in prompts.items():
        rows = np.stack([np.full((2, 8), token) for token in tokens]).astype(jnp.bfloat16)
        for cache in caches:
            num_cached = cache.add(name, tokens)
            cache.write(name, rows[num_cached:], -rows[num_cached:])
            cached.setdefault(name, []).append(num_cached)
    assert cached == {"a": [0, 0], "b": [0, 8], "c": [0, 8]}
    for name, tokens in prompts.items():
        for pools in ("keys", "values"):
            rows = [
                np.asarray(getattr(cache, pools))[cache.page_table([name], 8)[0]].reshape(-1, 2, 8)
                for cache in caches
            ]
            sign = 1 if pools == "keys" else -1
            assert (rows[0][: len(tokens), 0, 0] == sign * np.array(tokens)).all()
            np.testing.assert_array_equal(rows[0][: len(tokens)], rows[1][: len(tokens)])
    assert before.add("too long", range(1000)) is None
    assert after.add("too long", range(250)) is None
    for name in prompts:
        for cache in caches:
            cache.remove(name)
    assert len(before.free) == after.manager.num_free_pages == 63
    after.manager.assert_no_leaks()
