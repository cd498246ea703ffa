"""Which mesh axes the page tensors of a cache are cut over."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from jax.sharding import Mesh, NamedSharding, PartitionSpec

MeshAxes = str | tuple[str, ...] | None
"""One mesh axis, several of them, or none: not cut."""

# Of key and value pages.
PAGE_AXES = ("kv_heads", "pages", "page_size", "head_dim")


@dataclass(frozen=True)
class PartitionAxis:
    """The mesh axes that keys and values are cut over, one field for each of their axes.

    The names are those of eformer's `PartitionAxis`, which does as well wherever one is asked
    for: any object with a `head_axis` does. Page tensors use `head_axis` alone.

    Attributes:
      batch_axis: Of the requests.
      key_sequence_axis: Of the tokens.
      head_axis: Of the kv heads.
      attention_dim_axis: Of the elements of a head.
    """

    batch_axis: MeshAxes = ("fsdp", "dp")
    key_sequence_axis: MeshAxes = "sp"
    head_axis: MeshAxes = "tp"
    attention_dim_axis: MeshAxes = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _as_axes(field.name, getattr(self, field.name)))

    @classmethod
    def of(cls, axes: Any) -> "PartitionAxis":
        """Reads the fields off any object or mapping with at least a `head_axis`.

        Raises:
          TypeError: If it has none, or a field is no axis name, tuple of them, or None.
        """
        if isinstance(axes, cls):
            return axes
        if isinstance(axes, Mapping):
            found = {f.name: axes[f.name] for f in fields(cls) if f.name in axes}
        else:
            found = {f.name: getattr(axes, f.name) for f in fields(cls) if hasattr(axes, f.name)}
        if "head_axis" not in found:
            raise TypeError(
                f"[PartitionAxis] partition_axis must have a head_axis, got {type(axes).__name__}"
            )
        # What it does not name is not cut.
        return cls(**{**dict.fromkeys((f.name for f in fields(cls)), None), **found})


def pages_sharding(operation: str, mesh: Mesh, spec: Any, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of page tensors of ``shape``, ``[kv_heads, pages, page_size, head_dim]``.

    Args:
      operation: For error messages.
      mesh: Of ``spec``.
      spec: A `PartitionSpec`, or a `NamedSharding`, which is taken as it is.
      shape: Of the whole tensor.

    Raises:
      TypeError: If ``spec`` is neither.
      ValueError: If it names axes that the mesh has not, cuts the tokens of a page, or does not
        divide ``shape``.
    """
    if isinstance(spec, NamedSharding):
        sharding = spec
    else:
        if not isinstance(spec, PartitionSpec):
            raise TypeError(
                f"[{operation}] kv_pages_sharding must be a PartitionSpec or a NamedSharding, got "
                f"{type(spec).__name__}"
            )
        for name in (name for axes in spec for name in axis_names(axes)):
            if name not in mesh.axis_names:
                raise ValueError(
                    f"[{operation}] mesh axis {name!r} of {spec} is not one of {mesh.axis_names}"
                )
        sharding = NamedSharding(mesh, spec)
    if len(sharding.spec) > len(shape):
        raise ValueError(
            f"[{operation}] kv_pages_sharding must name at most {len(shape)} axes, "
            f"got {sharding.spec}"
        )
    for axis, size, mesh_axes in zip(PAGE_AXES, shape, padded(sharding.spec), strict=True):
        num_shards = math.prod(sharding.mesh.shape[name] for name in axis_names(mesh_axes))
        if axis == "page_size" and num_shards > 1:
            raise ValueError(
                f"[{operation}] the tokens of a page cannot be cut over the mesh, got {sharding.spec}"
            )
        if size % num_shards != 0:
            raise ValueError(
                f"[{operation}] {axis} {size} cannot be cut into the {num_shards} shards of mesh "
                f"axis {mesh_axes!r}"
            )
    return sharding


def padded(spec: PartitionSpec) -> tuple[Any, ...]:
    """The entries of ``spec`` for all four axes of page tensors."""
    return (*spec, *(None,) * (len(PAGE_AXES) - len(spec)))


def axis_names(axes: Any) -> tuple[str, ...]:
    """The mesh axes in one entry of a `PartitionSpec`."""
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else tuple(axes)


def _as_axes(name: str, axes: Any) -> MeshAxes:
    if isinstance(axes, list | tuple) and all(isinstance(axis, str) for axis in axes):
        return tuple(axes)
    if axes is None or isinstance(axes, str):
        return axes
    raise TypeError(
        f"[PartitionAxis] {name} must be a mesh axis, a tuple of them or None, got {axes!r}"
    )
