"""The slots of a step's tokens: ``page_id * page_size + offset``, int32, -1 for none.

A page id that is not in the pool gives the number of slots, which is no slot: the write drops and
counts it. That of a page table in which -1 stands for no page gives -1, which is not counted.
"""

from typing import Any

import jax
import jax.numpy as jnp

_MIN_INT32, _MAX_INT32 = -(2**31), 2**31 - 1


def prefill_slots(
    operation: str, length: Any, page_table: Any, num_tokens: int, num_pages: int, page_size: int
) -> jax.Array:
    """Slots of a prompt, int32, shape ``[num_tokens]``: whole pages, up to that of the last token.

    Args:
      operation: For error messages.
      length: Integer, shape ``[]``: tokens of the prompt.
      page_table: Integers, shape ``[pages]``.
      num_tokens: Of the prompt with its padding, a multiple of ``page_size``.
      num_pages: Of the pool.
      page_size: Of the pool.

    Raises:
      TypeError: If ``length`` or ``page_table`` are no integers.
      ValueError: If a shape is not as above, or ``num_tokens`` no multiple of ``page_size``.
    """
    if num_tokens % page_size != 0:
        raise ValueError(
            f"[{operation}] key must have a multiple of page_size {page_size} tokens, "
            f"got {num_tokens}"
        )
    length = _as_int32(operation, "prefill_length", length, 0)
    table = _as_int32(operation, "prefill_page_table", page_table, 1)
    width = num_tokens // page_size
    beyond = jnp.full(max(0, width - table.shape[0]), num_pages, jnp.int32)
    token = jnp.arange(num_tokens, dtype=jnp.int32)
    page = jnp.repeat(jnp.concatenate([table[:width], beyond]), page_size)
    is_active = token - token % page_size < length
    slots = _slots(page, token % page_size, num_pages, page_size)
    return jnp.where(is_active, slots, -1)


def generate_slots(
    operation: str, pos: Any, page_table: Any, num_tokens: int, num_pages: int, page_size: int
) -> jax.Array:
    """Slots of one new token of each row, int32, shape ``[num_tokens]``.

    Args:
      operation: For error messages.
      pos: Integers, shape ``[num_tokens]``: the position of each token, -1 for none.
      page_table: Integers, shape ``[num_tokens, pages]``.
      num_tokens: Rows.
      num_pages: Of the pool.
      page_size: Of the pool.

    Raises:
      TypeError: If ``pos`` or ``page_table`` are no integers.
      ValueError: If a shape is not as above.
    """
    pos = _as_int32(operation, "generate_pos", pos, 1)
    table = _as_int32(operation, "generate_page_table", page_table, 2)
    for name, array in (("generate_pos", pos), ("generate_page_table", table)):
        if array.shape[0] != num_tokens:
            raise ValueError(
                f"[{operation}] {name} must have {num_tokens} rows as key, got {array.shape[0]}"
            )
    # One more column, for the positions that the table has no page of.
    table = jnp.pad(table, ((0, 0), (0, 1)), constant_values=num_pages)
    width = table.shape[1] - 1
    column = jnp.where(pos >= 0, jnp.minimum(pos // page_size, width), width)
    page = jnp.take_along_axis(table, column[:, None], axis=1)[:, 0]
    slots = _slots(page, pos % page_size, num_pages, page_size)
    return jnp.where(pos == -1, -1, slots)


def _slots(page: jax.Array, offset: jax.Array, num_pages: int, page_size: int) -> jax.Array:
    exists = (page >= 0) & (page < num_pages)
    none = jnp.where(page == -1, -1, num_pages * page_size)
    return jnp.where(exists, page * page_size + offset, none)


def _as_int32(operation: str, name: str, value: Any, rank: int) -> jax.Array:
    """``value`` as int32 of ``rank`` axes. What int32 cannot hold stays out of every range."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"[{operation}] {name} must be integers, got {array.dtype}")
    if array.ndim != rank:
        raise ValueError(f"[{operation}] {name} must have {rank} axes, got {list(array.shape)}")
    limits = jnp.iinfo(array.dtype)
    low, high = max(int(limits.min), _MIN_INT32), min(int(limits.max), _MAX_INT32)
    return array if array.dtype == jnp.int32 else jnp.clip(array, low, high).astype(jnp.int32)
