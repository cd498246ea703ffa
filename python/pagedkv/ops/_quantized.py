"""Pools of int8, int4 or fp8 with their scales."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from pagedkv.layouts import KVLayout
from pagedkv.ops import _checks

T = TypeVar("T")
Granularity = Literal["token", "page", "static"]

LARGEST = {"int8": 127.0, "int4": 7.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
FLOATS = ("float32", "bfloat16", "float16")


class QuantizedPages(NamedTuple):
    """A quantised pool: what is stored times its scale is what was written.

    `pagedkv.ops.write_kv` takes it in place of a pool, and quantises; `gather_pages` reads numbers
    from it. The shape of the scales says what shares one, always within one head of keys or of
    values. As JAX's ``QuantizedTensor``, it is a pytree of both arrays: `copy_pages` and
    `move_pages` take it as it is.

    With ``largest`` the largest number of the dtype (127, 7, 448, 57344), and for numbers of at
    most magnitude ``a`` in what shares a scale:

    ============ ===================================== ============================================
    granularity  scales have the axes of the pool      a number that was written reads back within
    ============ ===================================== ============================================
    ``token``    but for those of ``head_dim``         int: ``a / largest / 2``; e4m3: 1/16 of
                                                       itself + ``a / 2**17``; e5m2: 1/8 of itself
    ``page``     and of ``page_size``                  int: ``2 * a / largest``; e4m3, e5m2 as above
                                                       but ``a / 2**16``
    ``static``   and of ``pages``                      as ``token``, with ``largest * scale`` for
                                                       ``a``; beyond it, it reads as that
    ============ ===================================== ============================================

    ``token`` and ``page`` scales are found as rows come: those of a token are its own. That of a
    page is the first row's, and doubles whenever a later row needs more; what the page holds is
    then quantised again. A row at the first slot of a page begins anew. ``static`` scales are the
    caller's, from calibration. A row of ``token`` with an infinity or a NaN reads as NaN, and so
    does the page of one of ``page``.

    Attributes:
      pages: int8, int4, float8_e4m3fn or float8_e5m2, of any `KVLayout`.
      scales: float32. Where keys and values lie side by side, a last axis of 2 tells them apart.

    Example:
      >>> import jax.numpy as jnp
      >>> from pagedkv.ops import QuantizedPages, gather_pages, write_kv
      >>> pool = QuantizedPages.zeros([4, 2, 1, 2], jnp.int8)
      >>> row = jnp.array([[[1.0, -0.5]]])
      >>> keys, values, _ = write_kv(pool, pool, row, row, jnp.int32([5]))
      >>> keys.pages[2, 1, 0].tolist()
      [127, -64]
      >>> gather_pages(keys, jnp.int32([2]), dtype=jnp.bfloat16).rows[0, 1, 0].tolist()
      [1.0, -0.50390625]
    """

    pages: Any
    scales: Any

    @classmethod
    def zeros(
        cls,
        shape: tuple[int, ...] | list[int],
        dtype: DTypeLike,
        *,
        granularity: Granularity = "token",
        layout: KVLayout | str = KVLayout.NHD,
        device: Any = None,
    ) -> "QuantizedPages":
        """Allocates a pool of zeros, with scales of zero; those of ``static`` are ones.

        Args:
          shape: Of the pages: as the layout says, with a layer axis before it or without.
          dtype: int8, int4, float8_e4m3fn or float8_e5m2.
          granularity: What shares a scale.
          layout: A `pagedkv.KVLayout`, or its name.
          device: A `jax.Device` or `jax.sharding.Sharding` for the pages. Scales go along, as far as
            they have the axes that it cuts.

        Raises:
          TypeError: If the dtype is none of these, or the shape is no tuple or list of sizes.
          ValueError: If the shape has the wrong rank, or ``granularity`` is unknown.
        """
        operation = "QuantizedPages.zeros"
        layout = _checks.as_layout(operation, layout)
        check_code_dtype(operation, "dtype", as_dtype(operation, dtype))
        if not isinstance(granularity, str) or granularity not in ("token", "page", "static"):
            raise ValueError(
                f"[{operation}] granularity must be 'token', 'page' or 'static', "
                f"got {granularity!r}"
            )
        if not isinstance(shape, tuple | list) or not all(
            isinstance(axis, int | np.integer) and axis >= 0 for axis in shape
        ):
            raise TypeError(f"[{operation}] shape must be a tuple of sizes, got {shape!r}")
        rank = len(layout.axes)
        if len(shape) not in (rank, rank + 1):
            raise ValueError(
                f"[{operation}] shape must have {rank} axes, or one more for layers, got {shape}"
            )
        leading, layer = tuple(shape[:-rank]), tuple(shape[-rank:])
        make = jnp.ones if granularity == "static" else jnp.zeros
        of_scales = device
        if isinstance(device, NamedSharding):
            spec = (*device.spec, *[None] * (len(shape) - len(device.spec)))
            kept = of_scale_axes(layout, spec[-rank:], granularity)
            of_scales = NamedSharding(device.mesh, PartitionSpec(*spec[:-rank], *kept))
        return cls(
            pages=jnp.zeros(shape, dtype, device=device),
            scales=make(
                leading + scale_shape(layout, layer, granularity), jnp.float32, device=of_scales
            ),
        )


def scale_shape(
    layout: KVLayout, shape: tuple[int, ...], granularity: Granularity
) -> tuple[int, ...]:
    """The shape of the scales of one layer's pool of ``shape``."""
    axes = of_scale_axes(layout, shape, granularity)
    return (*axes, 2) if layout is KVLayout.SIDE_BY_SIDE else axes


def of_scale_axes(
    layout: KVLayout, of_axes: Sequence[T], granularity: Granularity
) -> tuple[T, ...]:
    """Of something for each axis of a layer's pool, that of the axes that its scales have too."""
    kept = {"token": ("pages", "page_size"), "page": ("pages",), "static": ()}[granularity]
    return tuple(
        of_axis
        for name, of_axis in zip(layout.axes, of_axes, strict=True)
        if name == "kv_heads" or name in kept
    )


def check_code_dtype(operation: str, name: str, dtype: Any) -> None:
    if dtype.name not in LARGEST:
        raise TypeError(f"[{operation}] {name} must be one of {', '.join(LARGEST)}, got {dtype}")


def granularity_of(
    operation: str, name: str, pool: QuantizedPages, layout: KVLayout, *, layered: bool
) -> Granularity:
    """What shares a scale. Refuses scales that do not go with the pages."""
    pages = _checks.as_array(operation, f"{name}.pages", pool.pages)
    check_code_dtype(operation, f"{name}.pages", pages.dtype)
    scales = _checks.as_array(operation, f"{name}.scales", pool.scales)
    if scales.dtype != np.float32:
        raise TypeError(f"[{operation}] {name}.scales must be float32, got {scales.dtype}")
    leading, layer = pages.shape[:layered], pages.shape[layered:]
    shapes = {}
    granularities: tuple[Granularity, ...] = ("token", "page", "static")
    for granularity in granularities:
        shapes[granularity] = leading + scale_shape(layout, layer, granularity)
        if scales.shape == shapes[granularity]:
            return granularity
    wanted = ", ".join(f"{list(shape)} ({name})" for name, shape in shapes.items())
    raise ValueError(
        f"[{operation}] {name}.scales must have one of the shapes {wanted}, "
        f"got {list(scales.shape)}"
    )


def as_dtype(operation: str, dtype: DTypeLike) -> np.dtype[Any]:
    try:
        return np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"[{operation}] dtype must be a dtype, got {dtype!r}") from error


def as_float_dtype(operation: str, dtype: DTypeLike | None) -> Any:
    """The dtype to read numbers as; bfloat16 without one."""
    found = as_dtype(operation, jnp.bfloat16 if dtype is None else dtype)
    if found.name not in FLOATS:
        raise TypeError(f"[{operation}] dtype must be one of {', '.join(FLOATS)}, got {found}")
    return found


def split(pool: ArrayLike | QuantizedPages | None) -> tuple[Any, Any]:
    """Pages and scales; None for scales that are not there."""
    return (pool.pages, pool.scales) if isinstance(pool, QuantizedPages) else (pool, None)


def join(pages: jax.Array, scales: jax.Array | None) -> Any:
    return pages if scales is None else QuantizedPages(pages, scales)
