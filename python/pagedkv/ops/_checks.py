"""What the ops ask of their operands at trace time. The handlers ask it again."""

import functools
import math
from typing import Any, Literal, Protocol, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pagedkv.layouts import KVLayout

Mode = Literal["drop", "raise"]

_MAX_INT32 = 2**31 - 1
_ROWS_IN_ONE_PIECE = (KVLayout.NHD, KVLayout.FUSED_PACKED, KVLayout.SIDE_BY_SIDE)


class HasShape(Protocol):
    """An array, a tracer or a ShapeDtypeStruct."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


def as_array(operation: str, name: str, value: object, *, abstract: bool = False) -> HasShape:
    """Refuses lists and scalars: an array has a dtype of its own, and nothing to convert.

    Refuses a ShapeDtypeStruct too, unless ``abstract``, and NumPy arrays of what JAX has not.
    """
    if isinstance(value, jax.Array):
        return cast(HasShape, value)
    if not isinstance(value, np.ndarray | np.generic | jax.ShapeDtypeStruct) or (
        isinstance(value, jax.ShapeDtypeStruct) and not abstract
    ):
        raise TypeError(f"[{operation}] {name} must be an array, got {type(value).__name__}")
    try:
        jax.typeof(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"[{operation}] {name} must be an array of a dtype that JAX has, "
            f"got a {type(value).__name__} of {value.dtype}"
        ) from error
    return cast(HasShape, value)


def check_mode(operation: str, mode: str) -> None:
    if not isinstance(mode, str) or mode not in get_args(Mode):
        raise ValueError(f"[{operation}] mode must be 'drop' or 'raise', got {mode!r}")


def flatten_pools(operation: str, pools: Any) -> tuple[list[Any], Any]:
    """The arrays of a pytree, and the tree without them."""
    try:
        return cast(tuple[list[Any], Any], jax.tree.flatten(pools))
    except (TypeError, ValueError) as error:
        raise ValueError(f"[{operation}] pools must be a pytree of arrays: {error}") from error


def find_page_axis(operation: str, layout: KVLayout | str, stacked: bool) -> int:
    """The axis of the pages in a pool of this layout."""
    page_axis = as_layout(operation, layout).page_axis
    if not isinstance(stacked, bool):
        raise TypeError(f"[{operation}] stacked must be a bool, got {type(stacked).__name__}")
    return page_axis + stacked


def check_int32(operation: str, name: str, ids: HasShape) -> None:
    if ids.dtype != np.int32:
        raise TypeError(f"[{operation}] {name} must be int32, got {ids.dtype}")


def as_layout(operation: str, layout: KVLayout | str) -> KVLayout:
    if isinstance(layout, KVLayout):
        return layout
    names = [member.name for member in KVLayout]
    if not isinstance(layout, str) or layout not in names:
        raise ValueError(
            f"[{operation}] layout must be a KVLayout or its name, one of {', '.join(names)}, "
            f"got {layout!r}"
        )
    return KVLayout[layout]


@functools.cache
def _is_extended(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jax.dtypes.extended))


def check_plain_dtype(operation: str, name: str, pages: HasShape) -> None:
    if _is_extended(pages.dtype):
        raise TypeError(f"[{operation}] {name} must be of a plain dtype, got {pages.dtype}")


def check_pool(
    operation: str, name: str, pages: HasShape, *, layered: bool, layout: KVLayout = KVLayout.NHD
) -> None:
    """Refuses a pool of the wrong rank, of rows that are not whole bytes, or out of int32's reach."""
    check_plain_dtype(operation, name, pages)
    shape = pages.shape[layered:]
    if len(pages.shape) != layered + len(layout.axes):
        layer = "with" if layered else "without"
        axes = ", ".join(["layers"] * layered + list(layout.axes))
        raise ValueError(
            f"[{operation}] {name} must have shape [{axes}] {layer} layer, got {_text(pages.shape)}"
        )
    sizes = layout.sizes(shape)
    if layout in _ROWS_IN_ONE_PIECE:
        row: tuple[int, ...] = (sizes["kv_heads"], sizes["head_dim"])
    else:
        row = (sizes["head_dim"] if shape[-1] == sizes["head_dim"] else 1,)
    row_bits = math.prod(row) * bits(pages.dtype)
    if row_bits % 8 != 0:
        raise ValueError(
            f"[{operation}] a row {_text(row)} of {name} must be whole bytes, "
            f"got {row_bits} bits of {pages.dtype}"
        )
    num_slots = sizes["pages"] * sizes["page_size"]
    if num_slots > _MAX_INT32:
        raise ValueError(
            f"[{operation}] {name} must have at most {_MAX_INT32} slots a layer, which int32 ids "
            f"can reach, got {num_slots}"
        )


def check_rows(
    operation: str,
    name: str,
    rows: HasShape,
    pages_name: str,
    pages: HasShape,
    ids: HasShape,
    *,
    layered: bool = False,
    layout: KVLayout = KVLayout.NHD,
    dtypes: tuple[str, ...] | None = None,
) -> None:
    """Refuses rows that are not one row of the pool for each id, of its dtype or one of ``dtypes``."""
    if dtypes is not None:
        if np.dtype(rows.dtype).name not in dtypes:
            raise TypeError(
                f"[{operation}] {name} must be one of {', '.join(dtypes)} to be quantised, "
                f"got {rows.dtype}"
            )
    elif rows.dtype != pages.dtype:
        raise TypeError(
            f"[{operation}] {name} must be {pages.dtype} as {pages_name}, got {rows.dtype}"
        )
    heads, dim = layout.room(pages.shape[layered:])
    room = (dim,) if layout.is_latent else (heads, dim)
    wanted = (*ids.shape, *room)
    fits = rows.shape == wanted
    if layout.pads and len(rows.shape) == len(wanted):
        row = rows.shape[len(ids.shape) :]
        fits = rows.shape[: len(ids.shape)] == ids.shape
        fits &= all(has <= size for has, size in zip(row, room, strict=True))
    if not fits:
        shape = _text(wanted)
        if layout.pads:
            shape = f"{_text(ids.shape)} and then at most {_text(room)}"
        raise ValueError(f"[{operation}] {name} must have shape {shape}, got {_text(rows.shape)}")


def check_page_op(
    operation: str,
    pages: ArrayLike,
    page_ids: ArrayLike,
    layer: ArrayLike | None,
    layout: KVLayout | str,
    mode: Mode,
) -> tuple[KVLayout, ArrayLike]:
    """What the ops on pages of one pool ask alike. Returns the layout and the layer's id."""
    layout = as_layout(operation, layout)
    check_mode(operation, mode)
    pool = as_array(operation, "pages", pages)
    check_pool(operation, "pages", pool, layered=layer is not None, layout=layout)
    check_int32(operation, "page_ids", as_array(operation, "page_ids", page_ids))
    return layout, as_layer(operation, layer, pool)


def check_page_rows(
    operation: str,
    rows: HasShape,
    pages_name: str,
    pages: HasShape,
    ids: HasShape,
    *,
    axis: int,
    layered: bool,
) -> None:
    """Refuses rows that are not one page for each id."""
    if rows.dtype != pages.dtype:
        raise TypeError(
            f"[{operation}] rows must be {pages.dtype} as {pages_name}, got {rows.dtype}"
        )
    wanted = (*ids.shape, *pages.shape[layered:axis], *pages.shape[axis + 1 :])
    if rows.shape != wanted:
        raise ValueError(
            f"[{operation}] rows must have shape {_text(wanted)}, got {_text(rows.shape)}"
        )


def check_pools(
    operation: str, pools: list[Any], page_axis: int, *, abstract: bool = False
) -> None:
    """Refuses arrays that have no pages, or not as many as the first."""
    if not pools:
        raise ValueError(f"[{operation}] pools must hold an array, got none")
    for i, value in enumerate(pools):
        pool = as_array(operation, f"pools[{i}]", value, abstract=abstract)
        check_plain_dtype(operation, f"pools[{i}]", pool)
        if len(pool.shape) <= page_axis:
            raise ValueError(
                f"[{operation}] pools[{i}] must count pages on axis {page_axis}, "
                f"got {_text(pool.shape)}"
            )
        if pool.shape[page_axis] == 0:
            raise ValueError(
                f"[{operation}] pools[{i}] must have a page on axis {page_axis}, "
                f"got {_text(pool.shape)}"
            )
        if pool.shape[page_axis] != pools[0].shape[page_axis]:
            raise ValueError(
                f"[{operation}] pools[{i}] must have the {pools[0].shape[page_axis]} pages of the "
                f"first on axis {page_axis}, got {_text(pool.shape)}"
            )
        run_bits = math.prod(pool.shape[page_axis + 1 :]) * bits(pool.dtype)
        if run_bits % 8 != 0:
            raise ValueError(
                f"[{operation}] a page of pools[{i}] must be whole bytes, "
                f"got {run_bits} bits of {pool.dtype}"
            )


def check_same_pages(operation: str, key_pages: HasShape, value_pages: HasShape) -> None:
    """Refuses pools that one slot does not address alike. Only head_dim may differ."""
    if key_pages.shape[:-1] != value_pages.shape[:-1]:
        raise ValueError(
            f"[{operation}] value_pages must have the shape of key_pages but for head_dim, "
            f"{_text(key_pages.shape)}, got {_text(value_pages.shape)}"
        )


def check_same_rows(operation: str, key: HasShape, value: HasShape) -> None:
    """Refuses keys and values of one pool that are not of one shape."""
    if key.shape != value.shape:
        raise ValueError(
            f"[{operation}] value must have the shape {_text(key.shape)} of key, "
            f"got {_text(value.shape)}"
        )


def check_absent(operation: str, name: str, value: object, layout: KVLayout) -> None:
    """Refuses an array that the layout has no place for."""
    if value is not None:
        raise ValueError(f"[{operation}] {name} must be None in layout {layout.name}")


def check_batch(
    operation: str, page_table: HasShape, query_starts: HasShape, context_lens: HasShape
) -> None:
    """Refuses arrays that do not describe the same number of requests."""
    if len(page_table.shape) != 2:
        raise ValueError(
            f"[{operation}] page_table must have shape [requests, width], "
            f"got {_text(page_table.shape)}"
        )
    num_requests = page_table.shape[0]
    for name, array, size in (
        ("query_starts", query_starts, num_requests + 1),
        ("context_lens", context_lens, num_requests),
    ):
        if array.shape != (size,):
            raise ValueError(
                f"[{operation}] {name} must have shape {_text((size,))} for the {num_requests} "
                f"requests of page_table, got {_text(array.shape)}"
            )


def check_query(
    operation: str,
    query: HasShape,
    pages: HasShape,
    num_kv_heads: int | None,
    *,
    layout: KVLayout,
    layered: bool,
) -> tuple[int, int]:
    """Refuses queries whose heads cannot share those of the pool in equal groups.

    Returns:
      The kv heads, and the elements of a key.
    """
    if np.dtype(query.dtype).name not in ("float32", "bfloat16", "float16"):
        raise TypeError(
            f"[{operation}] query must be float32, bfloat16 or float16, got {query.dtype}"
        )
    room, head_dim = layout.room(pages.shape[layered:])
    kv_heads = room
    if num_kv_heads is not None:
        if not isinstance(num_kv_heads, int) or isinstance(num_kv_heads, bool):
            raise TypeError(
                f"[{operation}] num_kv_heads must be an int, got {type(num_kv_heads).__name__}"
            )
        if not (1 <= num_kv_heads <= room and (layout.pads or num_kv_heads == room)):
            at_most = "between 1 and " if layout.pads else ""
            raise ValueError(
                f"[{operation}] num_kv_heads must be {at_most}{room} in layout {layout.name}, "
                f"got {num_kv_heads}"
            )
        kv_heads = num_kv_heads
    shape = query.shape
    if len(shape) != 3 or not (
        1 <= shape[2] <= head_dim if layout.pads else shape[2] == head_dim != 0
    ):
        at_most = "at most " if layout.pads else ""
        raise ValueError(
            f"[{operation}] query must have shape [tokens, heads, head_dim] with {at_most}the "
            f"{head_dim} elements of a key, at least 1, got {_text(shape)}"
        )
    if kv_heads == 0 or shape[1] % kv_heads != 0:
        raise ValueError(
            f"[{operation}] query must have a multiple of the {kv_heads} kv heads of key_pages, "
            f"got {_text(shape)}"
        )
    return kv_heads, shape[2]


def as_layer(operation: str, layer: ArrayLike | None, pages: HasShape) -> ArrayLike:
    """``layer`` as an int32 scalar; a pool without layers has layer 0 alone.

    A Python int is known now, so it is checked now.
    """
    if layer is None:
        return _int32(0)
    if isinstance(layer, int) and not isinstance(layer, bool):
        if not 0 <= layer < pages.shape[0]:
            raise IndexError(f"[{operation}] layer {layer} is out of range [0, {pages.shape[0]})")
        return _int32(layer)
    return _as_scalar(operation, "layer", layer)


def as_count(
    operation: str,
    name: str,
    count: ArrayLike | None,
    *,
    minimum: int = 1,
    without: int = _MAX_INT32,
) -> ArrayLike:
    """``count`` as an int32 scalar, or ``without``, by default all that int32 can count.

    A Python int is known now, so it is checked now.
    """
    if count is None:
        return _int32(without)
    if isinstance(count, int) and not isinstance(count, bool):
        if count < minimum:
            raise ValueError(f"[{operation}] {name} must be at least {minimum}, got {count}")
        return _int32(min(count, _MAX_INT32))
    return _as_scalar(operation, name, count)


@functools.cache
def _int32(value: int) -> np.int32:
    """One and the same object for a value: a program then has one constant of it."""
    return np.int32(value)


def _as_scalar(operation: str, name: str, value: ArrayLike) -> ArrayLike:
    scalar = as_array(operation, name, value)
    check_int32(operation, name, scalar)
    if scalar.shape != ():
        raise ValueError(f"[{operation}] {name} must be a scalar, got {_text(scalar.shape)}")
    return value


@functools.cache
def bits(dtype: Any) -> int:
    """Bits of one element in memory; types under a byte are packed there."""
    if jnp.issubdtype(dtype, jnp.integer):
        return int(jnp.iinfo(dtype).bits)
    if jnp.issubdtype(dtype, jnp.floating):
        return int(jnp.finfo(dtype).bits)
    return 8 * int(np.dtype(dtype).itemsize)


def _text(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
