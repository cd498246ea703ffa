"""What a TPU asks of an array whose parts a kernel copies by DMA."""

import math
from typing import Any

import numpy as np

from pagedkv.layouts import LANES
from pagedkv.ops._checks import HasShape, bits

# What Pallas takes on TPUs; float16, for one, it does not.
_DTYPES = (
    *("float32", "int32", "uint32", "bfloat16", "int16", "uint16", "int8", "uint8"),
    *("float8_e4m3fn", "float8_e5m2", "int4", "uint4"),
)
SUBLANES = 8  # rows of 32-bit words in a register, and in a tile of memory


def packing(dtype: Any) -> int:
    """Elements of a 32-bit word; neighbours on the last axis but one share it."""
    return 32 // bits(dtype)


def is_row_major(array: HasShape) -> bool:
    """Whether XLA keeps an array like this row-major, in whole tiles, so that a kernel can take it.

    XLA:TPU lays arrays out in tiles of the last two axes, and chooses another order of axes where
    tiles would be padded: ``[pages, 16, 8, 64]`` of bfloat16 has its pages innermost. A kernel, which
    wants it row-major, would have the whole array copied twice. The rule was read off the layouts
    that XLA's compiler chose for v5e and v6e.
    """
    if len(array.shape) < 2 or 0 in array.shape or np.dtype(array.dtype).name not in _DTYPES:
        return False
    rows, lanes = array.shape[-2:]
    return (
        lanes % LANES == 0
        and rows % packing(array.dtype) == 0
        and (rows in (1, 2, 4) or rows % SUBLANES == 0)
    )


def tile_rows(num_rows: int, dtype: Any) -> int:
    """Rows of the smallest part of ``num_rows`` that DMA can move, all of them if none is."""
    rows = SUBLANES * packing(dtype)
    return rows if num_rows % rows == 0 else num_rows


def num_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes of an array in VMEM, where its last two axes fill tiles."""
    *outer, rows, lanes = (1, 1, *shape)
    rows = math.ceil(rows / packing(dtype)) * packing(dtype)
    lanes = math.ceil(lanes / LANES) * LANES
    return math.prod(outer) * rows * lanes * bits(dtype) // 8
