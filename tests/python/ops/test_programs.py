"""Compiled programs that hold the ops, in the process that made them and in another."""

import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import ops_oracle as oracle
import pytest
from jax import export
from jax.experimental import serialize_executable
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from pagedkv.ops import gather_pages, paged_attention, write_kv
from pagedkv.testing import assert_in_place

LAYERS, PAGES, PAGE_SIZE, HEADS, DIM = 2, 128, 16, 4, 8
CHECKS = [
    export.DisabledSafetyCheck.custom_call(f"pagedkv.{name}")
    for name in ("write_kv.v2", "gather_pages.v2", "paged_attention.v2")
]


def step(keys, values, key, value, slots, table):
    """All ops at once: each token is a request of its own, whose only page the table has."""
    keys, values, _ = write_kv(keys, values, key, value, slots, layer=1)
    starts = jnp.arange(slots.shape[0] + 1, dtype=jnp.int32)
    lens = slots % PAGE_SIZE + 1
    output, _ = paged_attention(key, keys, values, table, starts, lens, layer=1)
    rows, num_dropped = gather_pages(keys, table[:, 0], layer=1)
    return keys, values, output, rows, num_dropped


def make_arrays():
    rng = np.random.default_rng(0)
    shape = (LAYERS, PAGES, PAGE_SIZE, HEADS, DIM)
    keys, values = (oracle.random_array(rng, shape, "float32") for _ in range(2))
    key, value = (oracle.random_array(rng, (3, HEADS, DIM), "float32") for _ in range(2))
    slots = np.int32([17, PAGES * PAGE_SIZE - 1, 1000])
    return keys, values, key, value, slots, (slots // PAGE_SIZE)[:, None]


def expected_results(keys, values, key, value, slots, table):
    keys, values, _ = oracle.write_kv(keys, values, key, value, slots, layer=1)
    starts, lens = np.arange(4, dtype=np.int32), slots % PAGE_SIZE + 1
    output, _ = oracle.paged_attention(key, keys, values, table, starts, lens, layer=1)
    return keys, values, output, *oracle.gather_pages(keys, table[:, 0], layer=1)


def assert_results(results):
    for actual, expected in zip(results, expected_results(*make_arrays()), strict=True):
        np.testing.assert_allclose(np.asarray(actual), expected, rtol=2e-5, atol=2e-5)


def types(arrays, shardings=None):
    shardings = shardings or [None] * len(arrays)
    return [
        jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
        for array, sharding in zip(arrays, shardings, strict=True)
    ]


# Programs over heads on 8 devices, rows and ids as they are for one.
SPECS = [P(None, None, None, "tp")] * 2 + [P(None, "tp")] * 2 + [P(), P()]
OUT_SPECS = (SPECS[0], SPECS[0], P(None, "tp"), P(None, None, "tp"), P())


def make_mesh(kind=AxisType.Auto):
    return jax.make_mesh((2, 4), ("dp", "tp"), axis_types=(kind,) * 2)


def sharded_step(mesh):
    return jax.shard_map(step, mesh=mesh, in_specs=tuple(SPECS), out_specs=OUT_SPECS)


def shardings(mesh):
    return [NamedSharding(mesh, spec) for spec in SPECS]


def place(mesh):
    return [jax.device_put(a, s) for a, s in zip(make_arrays(), shardings(mesh), strict=True)]


def run_python(program, *arguments, num_devices=1, **variables):
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, **variables},
        check=True,
        timeout=240,
    )


# jax.export

RUN_EXPORTED = """
import sys
from pathlib import Path
import jax, numpy as np
from jax import export
from pagedkv.ops import register_targets
from pagedkv.testing import assert_in_place

folder = Path(sys.argv[1])
register_targets()
exported = export.deserialize(bytearray((folder / "exported").read_bytes()))
arrays = [np.load(folder / f"{i}.npy") for i in range(6)]
if exported.nr_devices > 1:
    mesh = jax.make_mesh((2, 4), ("dp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    arrays = jax.device_put(arrays, list(exported.in_shardings_jax(mesh)))
call = jax.jit(exported.call, donate_argnums=(0, 1))
assert_in_place(call, *arrays, pools=arrays[:2])
for i, result in enumerate(call(*arrays)):
    np.save(folder / f"result{i}.npy", result)
"""


@pytest.mark.parametrize("num_devices", [1, 8])
def test_exported_program_runs_in_another_process(num_devices, tmp_path):
    arrays, function, placed = make_arrays(), step, None
    if num_devices > 1:
        function, placed = sharded_step(make_mesh()), shardings(make_mesh())
    jitted = jax.jit(function, donate_argnums=(0, 1))
    exported = export.export(jitted, disabled_checks=CHECKS)(*types(arrays, placed))
    assert exported.nr_devices == num_devices
    (tmp_path / "exported").write_bytes(exported.serialize())
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    run_python(RUN_EXPORTED, tmp_path, num_devices=num_devices)
    assert_results([np.load(tmp_path / f"result{i}.npy") for i in range(5)])


def test_exported_program_may_have_any_number_of_tokens():
    keys, values, key, value, slots, _ = make_arrays()
    (num_tokens,) = export.symbolic_shape("tokens")
    symbolic = [
        *types((keys, values)),
        *[jax.ShapeDtypeStruct((num_tokens, HEADS, DIM), np.float32)] * 2,
        jax.ShapeDtypeStruct((num_tokens,), np.int32),
    ]
    write = jax.jit(lambda *arrays: tuple(write_kv(*arrays, layer=1)))
    exported = export.export(write, disabled_checks=CHECKS)(*symbolic)
    for n in (1, 3):
        arrays = (keys, values, key[:n], value[:n], slots[:n])
        oracle.assert_same(exported.call(*arrays)[0], oracle.write_kv(*arrays, layer=1)[0])


def test_export_needs_the_names_of_the_targets():
    with pytest.raises(ValueError, match=r"pagedkv.write_kv.v2"):
        export.export(jax.jit(step))(*types(make_arrays()))


def test_export_refuses_what_the_partitioner_must_ask_this_process():
    with pytest.raises((NotImplementedError, ValueError), match=r"callbacks|CustomSPMD"):
        export.export(jax.jit(step), disabled_checks=CHECKS)(
            *types(make_arrays(), shardings(make_mesh()))
        )


# Ahead of time

RUN_COMPILED = """
import pickle, sys
from pathlib import Path
import jax, numpy as np
from jax.experimental import serialize_executable
from pagedkv.ops import register_targets

folder = Path(sys.argv[1])
register_targets()
step = serialize_executable.deserialize_and_load(
    *pickle.loads((folder / "compiled").read_bytes()), execution_devices=jax.devices()[:1]
)
arrays = [jax.numpy.array(np.load(folder / f"{i}.npy")) for i in range(6)]  # memory of JAX's own
pointers = [array.unsafe_buffer_pointer() for array in arrays[:2]]
results = step(*arrays)
assert [array.unsafe_buffer_pointer() for array in results[:2]] == pointers
assert arrays[0].is_deleted()
for i, result in enumerate(results):
    np.save(folder / f"result{i}.npy", result)
"""


def test_compiled_program_runs_in_another_process(tmp_path):
    arrays = make_arrays()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*types(arrays)).compile()
    (tmp_path / "compiled").write_bytes(pickle.dumps(serialize_executable.serialize(compiled)))
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    run_python(RUN_COMPILED, tmp_path)
    assert_results([np.load(tmp_path / f"result{i}.npy") for i in range(5)])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_compiled_ahead_of_time_for_a_mesh(kind):
    jitted = jax.jit(step, donate_argnums=(0, 1))
    assert_in_place(jitted, *place(make_mesh(kind)))
    compiled = jitted.lower(*types(make_arrays(), shardings(make_mesh(kind)))).compile()
    results = compiled(*place(make_mesh(kind)))
    assert_results(results)
    for result, spec in zip(results, OUT_SPECS, strict=True):
        assert result.sharding.is_equivalent_to(NamedSharding(make_mesh(kind), spec), result.ndim)


# The persistent compilation cache

COMPILE = """
import sys
import jax
sys.path[:0] = sys.argv[1:]
import test_programs as programs
from jax.sharding import AxisType

jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)

def one_device(*arrays):
    return programs.step(*arrays)

def manual(*arrays):
    return programs.sharded_step(programs.make_mesh())(*arrays)

def explicit(*arrays):
    return programs.step(*arrays)

def auto(*arrays):
    return programs.step(*arrays)

arrays = programs.make_arrays()
jax.jit(one_device, donate_argnums=(0, 1)).lower(*programs.types(arrays)).compile()
meshes = {manual: AxisType.Auto, explicit: AxisType.Explicit, auto: AxisType.Auto}
for function, kind in meshes.items():
    types = programs.types(arrays, programs.shardings(programs.make_mesh(kind)))
    jax.jit(function, donate_argnums=(0, 1)).lower(*types).compile()
"""


def compile_cached(folder, program, *arguments):
    """Names in the cache once a new process has compiled its programs."""
    run_python(
        program,
        *arguments,
        num_devices=8,
        JAX_COMPILATION_CACHE_DIR=str(folder),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
    return sorted(path.name for path in folder.glob("*-cache"))


def test_second_process_finds_programs_in_the_compilation_cache(tmp_path):
    folders = [os.path.dirname(__file__), os.path.dirname(oracle.__file__)]
    found = compile_cached(tmp_path, COMPILE, *folders)
    programs = [name.rsplit("-", 2)[0] for name in found]
    assert programs == ["jit_auto", "jit_explicit", "jit_manual", "jit_one_device"]
    assert compile_cached(tmp_path, COMPILE, *folders) == found  # a miss would have added one


def test_ops_that_differ_in_an_attribute_are_two_programs(tmp_path):
    """JAX leaves out of the key what tells the partitioner which op it is: here, we say so."""
    program = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from pagedkv.ops import write_kv

jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)
mesh = jax.make_mesh((8,), ("tp",), axis_types=(AxisType.Auto,))
pools = [jax.device_put(np.zeros((4, 2, 8, 1)), NamedSharding(mesh, P(None, None, "tp")))] * 2
row = np.ones((1, 8, 1), np.float32)
write = jax.jit(lambda *a: tuple(write_kv(*a, np.int32([99]), mode=sys.argv[1])))
try:
    assert int(jax.block_until_ready(write(*pools, row, row))[2]) == 1
except jax.errors.JaxRuntimeError as error:
    assert sys.argv[1] == "raise", error
else:
    assert sys.argv[1] == "drop"
"""
    compile_cached(tmp_path, program, "drop")
    compile_cached(tmp_path, program, "raise")
