"""How the structure of caches is written into programs that `jax.export` serialises.

Leaves aside, it is sizes and sharding: JSON. Devices are named by their ids, so a program is read
back where the same mesh can be made of `jax.devices()`.
"""

import json
from typing import Any

import jax
import jax.export
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pagedkv.cache.cache import PagedAttentionCache
from pagedkv.cache.metadata import PagedAttentionCacheMetaData
from pagedkv.cache.step import PagedAttentionMetadata
from pagedkv.cache.view import PagedAttentionCacheView

_NAMES = "pagedkv.cache"


def register_view(view_type: type[PagedAttentionCacheView], name: str) -> None:
    """Lets `jax.export` serialise programs that take or give views of this type."""
    jax.export.register_pytree_node_serialization(
        view_type,
        serialized_name=name,
        serialize_auxdata=_view_to_bytes,
        deserialize_auxdata=_view_from_bytes,
    )


def register_container(container_type: type, name: str) -> None:
    """The same for a type that consists of nothing but its children."""
    jax.export.register_pytree_node_serialization(
        container_type,
        serialized_name=name,
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: (),
    )


def _register_all() -> None:
    jax.export.register_pytree_node_serialization(
        PagedAttentionCacheMetaData,
        serialized_name=f"{_NAMES}.PagedAttentionCacheMetaData",
        serialize_auxdata=lambda metadata: metadata.to_json().encode(),
        deserialize_auxdata=lambda data: PagedAttentionCacheMetaData.from_json(data),
    )
    register_view(PagedAttentionCacheView, f"{_NAMES}.PagedAttentionCacheView")
    register_container(PagedAttentionCache, f"{_NAMES}.PagedAttentionCache")
    register_container(PagedAttentionMetadata, f"{_NAMES}.PagedAttentionMetadata")


def _view_to_bytes(auxdata: Any) -> bytes:
    metadata, layer_index, sharding = auxdata
    fields = {
        "metadata": metadata.to_dict(),
        "layer_index": layer_index,
        "kv_pages_sharding": None if sharding is None else _sharding_to_dict(sharding),
    }
    return json.dumps(fields).encode()


def _view_from_bytes(data: bytes | bytearray) -> Any:
    fields = json.loads(bytes(data))
    sharding = fields["kv_pages_sharding"]
    return (
        PagedAttentionCacheMetaData.from_dict(fields["metadata"]),
        fields["layer_index"],
        None if sharding is None else _sharding_from_dict(sharding),
    )


def _sharding_to_dict(sharding: NamedSharding) -> dict[str, Any]:
    mesh = sharding.mesh
    return {
        "spec": list(sharding.spec),
        "memory_kind": sharding.memory_kind,
        "axis_names": list(mesh.axis_names),
        "axis_types": [kind.name for kind in mesh.axis_types],
        "shape": list(mesh.devices.shape),
        "devices": [device.id for device in mesh.devices.flat],
    }


def _sharding_from_dict(fields: dict[str, Any]) -> NamedSharding:
    devices = {device.id: device for device in jax.devices()}
    missing = [device for device in fields["devices"] if device not in devices]
    if missing:
        raise ValueError(
            f"[PagedAttentionCacheView] the program is for the devices {fields['devices']}, of "
            f"which {missing} are not here"
        )
    mesh = Mesh(
        np.array([devices[device] for device in fields["devices"]]).reshape(fields["shape"]),
        fields["axis_names"],
        axis_types=tuple(AxisType[name] for name in fields["axis_types"]),
    )
    spec = [tuple(axes) if isinstance(axes, list) else axes for axes in fields["spec"]]
    return NamedSharding(mesh, PartitionSpec(*spec), memory_kind=fields["memory_kind"])


_register_all()
