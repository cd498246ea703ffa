"""How keys and values lie in page arrays."""

import enum
import math
from collections.abc import Mapping, Sequence

LANES = 128  # elements that TPU kernels want the last axis to be a multiple of


# What the axes of one layer's pool count; neighbours of one name count together.
_AXES: dict[str, tuple[str, ...]] = {
    "NHD": ("pages", "page_size", "kv_heads", "head_dim"),
    "HND": ("pages", "kv_heads", "page_size", "head_dim"),
    "HEADS_FIRST": ("kv_heads", "pages", "page_size", "head_dim"),
    "FUSED": ("pages", "page_size", "kv_heads", "head_dim"),
    "FUSED_PACKED": ("pages", "page_size", "kv_heads", "kv_heads", "head_dim"),
    "SIDE_BY_SIDE": ("pages", "page_size", "kv_heads", "kv_heads", "head_dim"),
    "LATENT": ("pages", "page_size", "head_dim"),
    "LATENT_PACKED": ("pages", "page_size", "page_size", "head_dim"),
    "LATENT_TRANSPOSED": ("pages", "head_dim", "page_size"),
}


class KVLayout(enum.Enum):
    """The axes of a pool of pages, and how keys and values share it.

    Every op takes one, by member or by name, so that no pool is transposed for anybody's kernel.
    A stacked pool has a layer axis before these. ``pack`` is ``32 / bits`` of the dtype: elements
    that TPUs keep in one 32-bit word.

    ======================= =========================================== ============================
    layout                  shape of a layer's pool                     who reads it
    ======================= =========================================== ============================
    ``NHD``                 ``[pages, page_size, heads, dim]`` twice    EasyDeL unified (GPU)
    ``HND``                 ``[pages, heads, page_size, dim]`` twice    FlashInfer
    ``HEADS_FIRST``         ``[heads, pages, page_size, dim]`` twice    JAX's Pallas
                                                                        ``paged_attention`` (TPU and
                                                                        GPU), MaxText, EasyDeL 0.1.3
    ``FUSED``               ``[pages, page_size, 2 * heads, dim]``,     JAX's
                            along the heads K0 V0 K1 V1 ...             ``ragged_paged_attention``,
                                                                        EasyDeL v2
    ``FUSED_PACKED``        ``[pages, page_size, 2 * heads / pack,      tpu-inference v3, EasyDeL v3,
                            pack, dim]``, heads as above, dim and       sglang-jax
                            heads rounded up
    ``SIDE_BY_SIDE``        ``[pages, page_size, heads / pack, pack,    tpu-inference v3 and EasyDeL
                            2 * dim]``, a head's key, then its value    v3 with ``dim`` 64
    ``LATENT``              ``[pages, page_size, dim]``, one row for    MLA
                            keys and values
    ``LATENT_PACKED``       ``[pages, page_size / pack, pack, dim]``,   tpu-inference MLA
                            dim rounded up
    ``LATENT_TRANSPOSED``   ``[pages, dim, page_size]``                 tpu-inference MLA, transposed
    ======================= =========================================== ============================

    Where heads or dim are rounded up, rows are written with zeros behind them. TPUs want a last axis
    of a multiple of 128; docs/platforms.md says what else.

    Example:
      >>> from pagedkv import KVLayout
      >>> KVLayout.FUSED_PACKED.pool_shapes(
      ...     num_pages=8, page_size=16, num_kv_heads=2, head_dim=64, dtype_bits=16
      ... )
      ((8, 16, 2, 2, 128),)
    """

    NHD = "NHD"
    HND = "HND"
    HEADS_FIRST = "HEADS_FIRST"
    FUSED = "FUSED"
    FUSED_PACKED = "FUSED_PACKED"
    SIDE_BY_SIDE = "SIDE_BY_SIDE"
    LATENT = "LATENT"
    LATENT_PACKED = "LATENT_PACKED"
    LATENT_TRANSPOSED = "LATENT_TRANSPOSED"

    # Members are compared by identity. Python's own hash, of the name, is a call of its own, and a
    # trace looks up layouts for every op.
    __hash__ = object.__hash__

    def __init__(self, name: str) -> None:
        self._axes = _AXES[name]

    @property
    def axes(self) -> tuple[str, ...]:
        """What the axes of one layer's pool count; neighbours of one name count together."""
        return self._axes

    @property
    def page_axis(self) -> int:
        """The axis of the pages, in one layer's pool."""
        return self.axes.index("pages")

    @property
    def is_latent(self) -> bool:
        """Whether a token has one row, without heads, for key and value."""
        return "kv_heads" not in self.axes

    @property
    def is_shared(self) -> bool:
        """Whether keys and values are in one pool."""
        return self not in (KVLayout.NHD, KVLayout.HND, KVLayout.HEADS_FIRST)

    @property
    def pads(self) -> bool:
        """Whether a pool may have more heads and elements than the rows."""
        return self in (KVLayout.FUSED_PACKED, KVLayout.SIDE_BY_SIDE, KVLayout.LATENT_PACKED)

    def sizes(self, shape: Sequence[int]) -> dict[str, int]:
        """Sizes of a layer's pool by the names of its axes.

        Args:
          shape: Of the pool, without a layer axis.

        Raises:
          ValueError: If ``shape`` has another number of axes than the layout.
        """
        if len(shape) != len(self._axes):
            raise ValueError(
                f"[KVLayout.sizes] shape must have the axes [{', '.join(self._axes)}] of "
                f"{self.name}, got {list(shape)}"
            )
        sizes = dict(zip(self._axes, shape, strict=True))
        if len(sizes) < len(shape):  # neighbours of one name
            sizes = dict.fromkeys(self._axes, 1)
            for name, size in zip(self._axes, shape, strict=True):
                sizes[name] *= size
        return sizes

    def room(self, shape: Sequence[int]) -> tuple[int, int]:
        """Heads, and elements of each, that a token's key has room for; 1 head if latent.

        Args:
          shape: Of the pool, without a layer axis.

        Raises:
          ValueError: If ``shape`` has another number of axes than the layout.
        """
        sizes = self.sizes(shape)
        heads, dim = sizes.get("kv_heads", 1), sizes["head_dim"]
        if self in (KVLayout.FUSED, KVLayout.FUSED_PACKED):
            heads //= 2
        if self is KVLayout.SIDE_BY_SIDE:
            dim //= 2
        return heads, dim

    def pool_shapes(
        self,
        *,
        num_pages: int,
        page_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype_bits: int,
        value_dim: int | None = None,
    ) -> tuple[tuple[int, ...], ...]:
        """Shapes of the pools of one layer: one if keys and values share it, else two.

        Args:
          num_pages: Pages, the null page among them.
          page_size: Tokens of a page.
          num_kv_heads: Heads of a token; 1 if latent.
          head_dim: Elements of a key head, or of a latent row.
          dtype_bits: Bits of an element.
          value_dim: Elements of a value head; ``head_dim`` without it. Only for layouts that have
            values apart.

        Raises:
          ValueError: If the layout cannot hold this.
        """
        operation = "KVLayout.pool_shapes"
        if value_dim is not None and value_dim != head_dim and self.is_shared:
            raise ValueError(
                f"[{operation}] {self.name} has keys and values of one size, got {head_dim} and "
                f"{value_dim}"
            )
        if self.is_latent and num_kv_heads != 1:
            raise ValueError(f"[{operation}] {self.name} has 1 kv head, got {num_kv_heads}")
        pack = max(1, 32 // dtype_bits)
        lanes = math.ceil(head_dim / LANES) * LANES
        if self is KVLayout.LATENT_PACKED and page_size % pack:
            raise ValueError(
                f"[{operation}] {self.name} needs page_size in multiples of {pack} for "
                f"{dtype_bits} bits, got {page_size}"
            )
        sizes: Mapping[str, int] = {
            "pages": num_pages,
            "page_size": page_size,
            "kv_heads": num_kv_heads,
            "head_dim": head_dim,
        }
        if not self.is_shared:
            shape = tuple(sizes[name] for name in self.axes)
            return shape, (*shape[:-1], head_dim if value_dim is None else value_dim)
        match self:
            case KVLayout.FUSED:
                shape = (num_pages, page_size, 2 * num_kv_heads, head_dim)
            case KVLayout.FUSED_PACKED:
                shape = (num_pages, page_size, math.ceil(2 * num_kv_heads / pack), pack, lanes)
            case KVLayout.SIDE_BY_SIDE:
                shape = (num_pages, page_size, math.ceil(num_kv_heads / pack), pack, 2 * head_dim)
            case KVLayout.LATENT_PACKED:
                shape = (num_pages, page_size // pack, pack, lanes)
            case _:
                shape = tuple(sizes[name] for name in self.axes)
        return (shape,)
