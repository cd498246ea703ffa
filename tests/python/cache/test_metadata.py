"""PagedAttentionCacheMetaData: the formula, its refusals, and JSON."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pagedkv import PagedAttentionCacheMetaData
from pagedkv.cache import PartitionAxis, memory
from seed_cache_golden import make_metadata

MIB = 2**20
ARGUMENTS = {
    "partition_axis": PartitionAxis(),
    "batch_size": 2,
    "num_hidden_layers": 3,
    "max_sequences": 100,
    "page_size": 16,
    "num_kv_heads": 2,
    "kv_head_dim_size": 64,
    "hbm_utilization": 0.5,
}


class Device:
    """A device with a memory of its own."""

    process_index = 0

    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def mesh_of(stats, num_devices=1):
    devices = np.array([Device(stats) for _ in range(num_devices)])
    return SimpleNamespace(devices=devices, local_devices=list(devices))


def create(mesh=None, **changes):
    return PagedAttentionCacheMetaData.create(mesh=mesh, **{**ARGUMENTS, **changes})


def test_counts_the_pages_that_fit_in_the_bytes_given():
    # A page of one layer: 16 tokens x 2 heads x 64 elements x 2 bytes x 2 = 8 KiB.
    metadata = create(hbm_bytes=3 * MIB + 5)
    assert metadata.num_pages_per_layer == MIB // 8192
    assert metadata.num_pages_per_sequence == 7
    assert metadata.hbm_bytes == 3 * MIB + 5
    assert metadata.dtype == jnp.bfloat16
    assert create(hbm_bytes=3 * MIB, dtype=jnp.float32).num_pages_per_layer == MIB // 16384


def test_asks_one_device_and_counts_all():
    stats = {"bytes_reservable_limit": 100 * MIB, "bytes_in_use": 20 * MIB, "bytes_limit": 1}
    metadata = create(mesh_of(stats, 8), hbm_utilization=0.8)
    assert metadata.hbm_bytes == (80 - 20) * MIB * 8
    assert metadata.num_pages_per_layer == 60 * MIB * 8 // 3 // 8192


def test_takes_the_plain_limit_where_no_reservable_one_is_reported():
    stats = {"bytes_limit": 100 * MIB, "bytes_in_use": 0}
    assert create(mesh_of(stats)).hbm_bytes == 50 * MIB
    with pytest.raises(ValueError, match="no limit of its memory: give hbm_bytes"):
        create(mesh_of({"bytes_in_use": 0}))


def test_counts_the_memory_of_a_process_once_on_the_cpu(monkeypatch):
    monkeypatch.setattr(memory, "process_limit", lambda: 100 * MIB)
    monkeypatch.setattr(memory, "process_in_use", lambda: 10 * MIB)
    assert create(jax.make_mesh((8,), ("tp",))).hbm_bytes == 40 * MIB
    mesh = mesh_of(None, 4)
    mesh.devices[3].process_index = 1
    assert create(mesh).hbm_bytes == 80 * MIB


def test_reads_the_memory_of_this_machine():
    assert 0 < memory.process_in_use() < memory.process_limit()


def test_a_container_may_have_less_than_the_machine(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (tmp_path / "absent", limit))
    limit.write_text("max\n")
    machine = memory.process_limit()
    limit.write_text("12345\n")
    assert memory.process_limit() == 12345 < machine


@pytest.mark.parametrize(
    "name",
    [
        "batch_size",
        "num_hidden_layers",
        "max_sequences",
        "page_size",
        "num_kv_heads",
        "kv_head_dim_size",
        "hbm_bytes",
    ],
)
def test_refuses_a_size_that_is_not_positive(name):
    for size in (0, -1):
        text = rf"\[PagedAttentionCacheMetaData.create\] {name} must be positive, got {size}"
        with pytest.raises(ValueError, match=text):
            create(**{"hbm_bytes": MIB, name: size})
    for size in (True, 1.5, "1", None):
        if name == "hbm_bytes" and size is None:
            continue
        with pytest.raises(TypeError, match=f"{name} must be int, got {type(size).__name__}"):
            create(**{"hbm_bytes": MIB, name: size})


@pytest.mark.parametrize("utilization", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_refuses_a_utilization_out_of_range(utilization):
    with pytest.raises(ValueError, match=r"hbm_utilization must be in \(0, 1\), got"):
        create(hbm_utilization=utilization, hbm_bytes=MIB)


def test_refuses_a_memory_without_room():
    assert create(hbm_bytes=2 * 3 * 8192).num_pages_per_layer == 2
    with pytest.raises(ValueError, match="49151 bytes for 3 layers have no room for 2 pages"):
        create(hbm_bytes=2 * 3 * 8192 - 1)
    full = {"bytes_reservable_limit": 100, "bytes_in_use": 100}
    with pytest.raises(ValueError, match="-50 bytes for 3 layers have no room"):
        create(mesh_of(full))


def test_never_makes_more_slots_than_int32_can_number():
    metadata = create(hbm_bytes=2**60)
    assert metadata.num_pages_per_layer == (2**31 - 1) // 16
    with pytest.raises(ValueError, match="page_size must be at most 2147483647"):
        metadata.replace(num_pages_per_layer=2**27)


def test_needs_a_head_axis():
    with pytest.raises(TypeError, match=r"partition_axis must have a head_axis, got NoneType"):
        create(partition_axis=None, hbm_bytes=MIB)
    with pytest.raises(TypeError, match=r"head_axis must be a mesh axis, a tuple of them or None"):
        create(partition_axis=SimpleNamespace(head_axis=3), hbm_bytes=MIB)


def test_keeps_any_partition_axis_and_compares_what_it_names():
    axes = SimpleNamespace(head_axis="tp", batch_axis=["fsdp", "dp"], key_sequence_axis="sp")
    duck = make_metadata(partition_axis=axes)
    assert duck.partition_axis is axes
    assert duck == make_metadata()
    assert hash(duck) == hash(make_metadata())
    other = make_metadata(partition_axis=SimpleNamespace(head_axis="model"))
    assert other != duck
    assert PartitionAxis.of(other.partition_axis).batch_axis is None


def test_is_static(metadata):
    assert jax.tree.leaves(metadata) == []
    traces = []

    @jax.jit
    def num_slots(metadata, x):
        traces.append(metadata)
        return x + metadata.page_size * metadata.num_pages_per_layer

    assert num_slots(metadata, 0) == 36
    assert num_slots(make_metadata(), 0) == 36
    assert len(traces) == 1
    assert num_slots(metadata.replace(page_size=5), 0) == 45


def test_equality_is_of_all_fields(metadata):
    assert metadata != "metadata"
    for name, value in {"hbm_bytes": 7, "batch_size": 9, "dtype": jnp.bfloat16}.items():
        assert metadata.replace(**{name: value}) != metadata
    with pytest.raises(AttributeError):
        metadata.page_size = 3


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"num_pages_per_layer": 0}, ValueError, "num_pages_per_layer must be positive, got 0"),
        ({"num_pages_per_sequence": 1.0}, TypeError, "num_pages_per_sequence must be int, got"),
        ({"hbm_utilization": 1.5}, ValueError, "hbm_utilization must be in"),
        ({"hbm_bytes": -1}, ValueError, "hbm_bytes must be in"),
        ({"hbm_bytes": float("inf")}, ValueError, "hbm_bytes must be in"),
        ({"hbm_bytes": float("nan")}, ValueError, "hbm_bytes must be in"),
        ({"hbm_bytes": "1"}, TypeError, "hbm_bytes must be a number, got str"),
        ({"dtype": "no such type"}, TypeError, "no such type"),
    ],
)
def test_refuses_fields_out_of_range(metadata, changes, error, text):
    with pytest.raises(error, match=text):
        metadata.replace(**changes)


def test_makes_plain_ints_of_numpy_ones():
    metadata = make_metadata(page_size=np.int64(4), hbm_bytes=np.int64(7))
    assert type(metadata.page_size) is type(metadata.hbm_bytes) is int
    assert PagedAttentionCacheMetaData.from_json(metadata.to_json()) == metadata


MESH_AXES = st.none() | st.text(min_size=1) | st.lists(st.text(min_size=1)).map(tuple)
SIZES = st.integers(1, 2**15)
METADATA = st.builds(
    PagedAttentionCacheMetaData,
    partition_axis=st.builds(PartitionAxis, *[MESH_AXES] * 4),
    dtype=st.sampled_from(["float32", "bfloat16", "float16", "float8_e4m3fn", "int8", "int4"]),
    **dict.fromkeys(
        (
            "batch_size",
            "num_hidden_layers",
            "num_pages_per_layer",
            "num_pages_per_sequence",
            "max_sequences",
            "page_size",
            "num_kv_heads",
            "kv_head_dim_size",
        ),
        SIZES,
    ),
    hbm_utilization=st.floats(0, 1),
    hbm_bytes=st.integers(0, 2**50) | st.floats(0, 1e15),
)


@given(METADATA, METADATA)
def test_json_round_trip(metadata, other):
    again = PagedAttentionCacheMetaData.from_json(metadata.to_json())
    assert again == metadata
    assert hash(again) == hash(metadata)
    assert again.to_dict() == metadata.to_dict() == json.loads(metadata.to_json(indent=2))
    assert again.dtype == metadata.dtype
    assert again.partition_axis == metadata.partition_axis
    assert (metadata == other) == (metadata.to_dict() == other.to_dict())


def test_from_dict_names_what_is_wrong(metadata):
    data = metadata.to_dict()
    for changed, text in (
        ({**data, "num_pages": 3}, r"\[PagedAttentionCacheMetaData.from_dict\] unknown: num_pages"),
        ({k: v for k, v in data.items() if k != "dtype"}, "missing: dtype"),
        ({**data, "page_size": 0}, "page_size must be positive, got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            PagedAttentionCacheMetaData.from_dict(changed)
    with pytest.raises(TypeError, match="head_axis"):
        PagedAttentionCacheMetaData.from_dict({**data, "partition_axis": {}})
