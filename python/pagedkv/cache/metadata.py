"""The sizes of a paged cache."""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from pagedkv.cache.axes import PartitionAxis
from pagedkv.cache.memory import usable_bytes

_MAX_INT32 = 2**31 - 1
_SIZES = (
    "batch_size",
    "num_hidden_layers",
    "max_sequences",
    "page_size",
    "num_kv_heads",
    "kv_head_dim_size",
)


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class PagedAttentionCacheMetaData:
    """The sizes of a paged cache, and how many pages of them fit in memory.

    The names and the formula are EasyDeL 0.1.3's. Immutable, and without leaves as a pytree: it is
    part of the structure of what holds it, so `jax.jit` compiles anew for other sizes.

    Two are equal if all sizes are and both partition axes have the same fields of `PartitionAxis`,
    of whatever class they are.

    Attributes:
      partition_axis: As given: a `PartitionAxis`, or any object with a ``head_axis``.
      dtype: Of the pages.
      batch_size: Requests in a decode step.
      num_hidden_layers: Layers of attention.
      num_pages_per_layer: Pages of each layer, the dummy page 0 among them.
      num_pages_per_sequence: Pages of the longest request: the width of page tables.
      max_sequences: Tokens of the longest request. The name is EasyDeL's.
      page_size: Tokens of a page.
      num_kv_heads: Heads of a token's key and value, over all devices.
      kv_head_dim_size: Elements of a head.
      hbm_utilization: The part of the memory that pages may take.
      hbm_bytes: Bytes for the pages of all layers, over all devices.
    """

    partition_axis: Any
    dtype: Any
    batch_size: int
    num_hidden_layers: int
    num_pages_per_layer: int
    num_pages_per_sequence: int
    max_sequences: int
    page_size: int
    num_kv_heads: int
    kv_head_dim_size: int
    hbm_utilization: float
    hbm_bytes: float

    def __post_init__(self) -> None:
        operation = type(self).__name__
        for name in _ALL_SIZES:
            object.__setattr__(self, name, _as_size(operation, name, getattr(self, name)))
        if self.num_pages_per_layer * self.page_size > _MAX_INT32:
            raise ValueError(
                f"[{operation}] num_pages_per_layer * page_size must be at most "
                f"{_MAX_INT32}, which int32 slots can reach, got "
                f"{self.num_pages_per_layer * self.page_size}"
            )
        for name, maximum in (("hbm_utilization", 1.0), ("hbm_bytes", math.inf)):
            number = _as_number(operation, name, getattr(self, name), maximum)
            object.__setattr__(self, name, number)
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype))
        PartitionAxis.of(self.partition_axis)  # raises if it is none

    @classmethod
    def create(
        cls,
        mesh: Any,
        partition_axis: Any,
        batch_size: int,
        num_hidden_layers: int,
        max_sequences: int,
        page_size: int,
        num_kv_heads: int,
        kv_head_dim_size: int,
        hbm_utilization: float,
        dtype: DTypeLike = jnp.bfloat16,
        *,
        hbm_bytes: int | None = None,
    ) -> "PagedAttentionCacheMetaData":
        """Computes how many pages fit in the memory of a mesh.

        ``num_pages_per_layer`` is ``(hbm_bytes // num_hidden_layers) // (page_size *
        num_kv_heads * kv_head_dim_size * itemsize * 2)``, and never more than int32 slots can
        number.

        As in EasyDeL 0.1.3, ``hbm_bytes`` is the memory of *all* devices of ``mesh``. Where pages
        are cut over fewer axes than the mesh has, each of them lies in several devices: give
        ``hbm_bytes``, or a mesh of the axes of the cache. What is in use differs between the
        processes of one program, which all need the same sizes: give them ``hbm_bytes`` too, or
        the metadata of one of them.

        Args:
          mesh: A `jax.sharding.Mesh`. Not read if ``hbm_bytes`` is given.
          partition_axis: A `PartitionAxis`, or any object with a ``head_axis``.
          batch_size: Requests in a decode step.
          num_hidden_layers: Layers of attention.
          max_sequences: Tokens of the longest request.
          page_size: Tokens of a page.
          num_kv_heads: Heads of a token's key and value, over all devices.
          kv_head_dim_size: Elements of a head.
          hbm_utilization: In ``(0, 1)``: the part of the memory limit of a device that pages may
            take, less what is in use now. The limit is the device's ``bytes_reservable_limit``. A
            CPU device reports none: there it is the memory of the machine, or of its container,
            once for each process, and what the process has resident is in use.
          dtype: Of the pages.
          hbm_bytes: The bytes for pages over all devices, instead of asking the devices.

        Raises:
          TypeError: If a size is not an int, or ``partition_axis`` has no ``head_axis``.
          ValueError: If a size is not positive, ``hbm_utilization`` is not in ``(0, 1)``, or the
            memory has no room for a page beside the dummy page.

        Example:
          >>> import jax
          >>> from pagedkv import PagedAttentionCacheMetaData
          >>> from pagedkv.cache import PartitionAxis
          >>> metadata = PagedAttentionCacheMetaData.create(
          ...     jax.make_mesh((1,), ("tp",)), PartitionAxis(), batch_size=4,
          ...     num_hidden_layers=2, max_sequences=100, page_size=16, num_kv_heads=2,
          ...     kv_head_dim_size=8, hbm_utilization=0.5, hbm_bytes=2**20,
          ... )
          >>> metadata.num_pages_per_layer, metadata.num_pages_per_sequence
          (512, 7)
        """
        operation = f"{cls.__name__}.create"
        sizes = {
            "batch_size": batch_size,
            "num_hidden_layers": num_hidden_layers,
            "max_sequences": max_sequences,
            "page_size": page_size,
            "num_kv_heads": num_kv_heads,
            "kv_head_dim_size": kv_head_dim_size,
        }
        sizes = {name: _as_size(operation, name, size) for name, size in sizes.items()}
        if not 0.0 < hbm_utilization < 1.0:
            raise ValueError(
                f"[{operation}] hbm_utilization must be in (0, 1), got {hbm_utilization}"
            )
        if hbm_bytes is None:
            hbm_bytes = usable_bytes(mesh, hbm_utilization)
        else:
            hbm_bytes = _as_size(operation, "hbm_bytes", hbm_bytes)
        row_bytes = num_kv_heads * kv_head_dim_size * jnp.dtype(dtype).itemsize * 2
        page_bytes = page_size * row_bytes
        num_pages = min(hbm_bytes // num_hidden_layers // page_bytes, _MAX_INT32 // page_size)
        if num_pages < 2:
            raise ValueError(
                f"[{operation}] {hbm_bytes} bytes for {num_hidden_layers} layers have no room for "
                f"2 pages of {page_bytes} bytes in each, one of them the dummy page"
            )
        return cls(
            partition_axis=partition_axis,
            dtype=dtype,
            num_pages_per_layer=num_pages,
            num_pages_per_sequence=math.ceil(max_sequences / page_size),
            hbm_utilization=hbm_utilization,
            hbm_bytes=hbm_bytes,
            **sizes,
        )

    @property
    def pages_shape(self) -> tuple[int, int, int, int]:
        """Of the key pages of a layer, and of its value pages."""
        return (
            self.num_kv_heads,
            self.num_pages_per_layer,
            self.page_size,
            self.kv_head_dim_size,
        )

    def replace(self, **changes: Any) -> "PagedAttentionCacheMetaData":
        """Returns a copy with other values of some fields. Nothing is computed anew."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields, of types that JSON has. Of ``partition_axis``, the fields of `PartitionAxis`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        axes = asdict(PartitionAxis.of(self.partition_axis))
        values["partition_axis"] = {
            name: list(axis) if isinstance(axis, tuple) else axis for name, axis in axes.items()
        }
        values["dtype"] = self.dtype.name
        return values

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PagedAttentionCacheMetaData":
        """Makes what `to_dict` was called on, with a `PartitionAxis` as ``partition_axis``.

        Raises:
          TypeError: If a field has the wrong type.
          ValueError: If a field is missing, unknown, or out of range.
        """
        names = {field.name for field in fields(cls)}
        for problem, found in (("missing", names - set(data)), ("unknown", set(data) - names)):
            if found:
                raise ValueError(
                    f"[{cls.__name__}.from_dict] {problem}: {', '.join(sorted(found))}"
                )
        return cls(**{**data, "partition_axis": PartitionAxis.of(data["partition_axis"])})

    def to_json(self, **options: Any) -> str:
        """`to_dict` as JSON; ``options`` are those of `json.dumps`."""
        return json.dumps(self.to_dict(), **options)

    @classmethod
    def from_json(cls, text: str | bytes) -> "PagedAttentionCacheMetaData":
        """Makes what `to_json` was called on. Raises as `from_dict`, and `json.JSONDecodeError`."""
        return cls.from_dict(json.loads(text))

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        rest = tuple(getattr(self, field.name) for field in fields(self)[1:])
        return (PartitionAxis.of(self.partition_axis), *rest)

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PagedAttentionCacheMetaData):
            return NotImplemented
        return self is other or self._key == other._key

    def __hash__(self) -> int:
        return self._hash


_ALL_SIZES = (*_SIZES, "num_pages_per_layer", "num_pages_per_sequence")


def _as_size(operation: str, name: str, size: Any) -> int:
    if not isinstance(size, int | np.integer) or isinstance(size, bool):
        raise TypeError(f"[{operation}] {name} must be int, got {type(size).__name__}")
    if size < 1:
        raise ValueError(f"[{operation}] {name} must be positive, got {size}")
    return int(size)


def _as_number(operation: str, name: str, number: Any, maximum: float) -> float:
    if not isinstance(number, int | float | np.number) or isinstance(number, bool):
        raise TypeError(f"[{operation}] {name} must be a number, got {type(number).__name__}")
    if not (0 <= number <= maximum and math.isfinite(number)):
        raise ValueError(f"[{operation}] {name} must be in [0, {maximum}], got {number}")
    plain: float = number.item() if isinstance(number, np.number) else number
    return plain
