"""The K/V pages of a model as one pytree."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from pagedkv.ops import QuantizedPages, gather_pages, paged_attention, write_kv
from pagedkv.ops._checks import bits
from pagedkv.ops._quantized import Granularity, split

_MAX_INT32 = 2**31 - 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class KVPool:
    """The key and value pages of every layer, stacked in one pool each.

    A pytree with two leaves, made to be donated to a jitted step and carried through
    `jax.lax.scan` over the layers, where its writes are in place.

    Attributes:
      key_pages: Shape ``[layers, pages, page_size, kv_heads, head_dim]``.
      value_pages: The same shape and dtype; ``head_dim`` may differ. Both may be `QuantizedPages`
        of such.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from pagedkv.kv_pool import KVPool
      >>> cache = KVPool.zeros(
      ...     num_layers=2, num_pages=8, page_size=4, num_kv_heads=1, head_dim=2, dtype=jnp.float32
      ... )
      >>> row = jnp.ones([1, 1, 2])
      >>> step = jax.jit(lambda cache: cache.write(1, row, row, jnp.int32([9])), donate_argnums=0)
      >>> cache, num_dropped = step(cache)
      >>> key_rows, value_rows = cache.gather(1, jnp.int32([[2]]))
      >>> key_rows.shape, key_rows[0, 1, 0].tolist()
      ((1, 4, 1, 2), [1.0, 1.0])
    """

    key_pages: Any
    value_pages: Any

    @classmethod
    def zeros(
        cls,
        *,
        num_layers: int,
        num_pages: int,
        page_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: DTypeLike,
        granularity: Granularity | None = None,
        device: Any = None,
    ) -> "KVPool":
        """Allocates a cache of zeros.

        Args:
          num_layers: Layers of attention, at least 1.
          num_pages: Pages of each layer, the null page 0 among them, at least 2.
          page_size: Tokens of a page, at least 1.
          num_kv_heads: Heads of a token's key and value, at least 1.
          head_dim: Elements of a head, at least 1.
          dtype: Of both pools.
          granularity: What shares a scale, for `QuantizedPages` of int8, int4, float8_e4m3fn or
            float8_e5m2. None for pages that keep K/V as they are.
          device: A `jax.Device` or `jax.sharding.Sharding` for both pools; the default device
            without one.

        Raises:
          TypeError: If a size is not an int.
          ValueError: If a size is too small, or a layer has more slots than int32 can number.
        """
        sizes = {
            "num_layers": (num_layers, 1),
            "num_pages": (num_pages, 2),
            "page_size": (page_size, 1),
            "num_kv_heads": (num_kv_heads, 1),
            "head_dim": (head_dim, 1),
        }
        for name, (size, minimum) in sizes.items():
            if not isinstance(size, int) or isinstance(size, bool):
                raise TypeError(f"[KVPool.zeros] {name} must be int, got {type(size).__name__}")
            if size < minimum:
                raise ValueError(f"[KVPool.zeros] {name} must be at least {minimum}, got {size}")
        if num_pages * page_size > _MAX_INT32:
            raise ValueError(
                f"[KVPool.zeros] num_pages * page_size must be at most {_MAX_INT32}, "
                f"which int32 slots can reach, got {num_pages * page_size}"
            )
        shape = (num_layers, num_pages, page_size, num_kv_heads, head_dim)

        def make() -> Any:
            if granularity is None:
                return jnp.zeros(shape, dtype, device=device)
            return QuantizedPages.zeros(shape, dtype, granularity=granularity, device=device)

        return cls(key_pages=make(), value_pages=make())

    @property
    def shape(self) -> tuple[int, ...]:
        """``(layers, pages, page_size, kv_heads, head_dim)`` of the keys."""
        return tuple(split(self.key_pages)[0].shape)

    @property
    def num_layers(self) -> int:
        """Layers of attention."""
        return self.shape[0]

    @property
    def num_pages(self) -> int:
        """Pages of each layer, the null page 0 among them."""
        return self.shape[1]

    @property
    def page_size(self) -> int:
        """Tokens of a page."""
        return self.shape[2]

    @property
    def num_kv_heads(self) -> int:
        """Heads of a token's key and value."""
        return self.shape[3]

    @property
    def head_dim(self) -> int:
        """Elements of a head of a key."""
        return self.shape[4]

    @property
    def dtype(self) -> Any:
        """Of the pages; if they are quantised, of the codes."""
        return split(self.key_pages)[0].dtype

    @property
    def is_quantized(self) -> bool:
        """Whether the pages are `QuantizedPages`."""
        return isinstance(self.key_pages, QuantizedPages)

    @property
    def nbytes(self) -> int:
        """Bytes of both pools and their scales, over all devices."""
        pools = jax.tree.leaves((self.key_pages, self.value_pages))
        return sum(pool.size * bits(pool.dtype) // 8 for pool in pools)

    def write(
        self, layer: ArrayLike, key: ArrayLike, value: ArrayLike, slot_mapping: ArrayLike
    ) -> tuple["KVPool", jax.Array]:
        """Writes new rows of one layer; see `pagedkv.ops.write_kv`.

        Args:
          layer: int, or int32 scalar array, in ``[0, layers)``.
          key: The dtype of the pages, or if they are quantised float32, bfloat16 or float16; shape
            ``[tokens, kv_heads, head_dim]``.
          value: Likewise.
          slot_mapping: int32, shape ``[tokens]``; -1 is padding.

        Returns:
          The new cache, and how many slots were out of range, int32 ``[]``.

        Raises:
          TypeError, ValueError, IndexError: As `pagedkv.ops.write_kv`.
        """
        written = write_kv(self.key_pages, self.value_pages, key, value, slot_mapping, layer=layer)
        cache = replace(self, key_pages=written.key_pages, value_pages=written.value_pages)
        return cache, written.num_dropped

    def gather(self, layer: ArrayLike, page_table: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Reads the tokens of each request in one layer; see `pagedkv.ops.gather_pages`.

        Args:
          layer: int, or int32 scalar array, in ``[0, layers)``.
          page_table: int32, shape ``[n, width]``. Ids out of range read as zeros.

        Returns:
          Keys and values, each of shape ``[n, width * page_size, kv_heads, head_dim]``: the dtype of
          the pages, or bfloat16 if they are quantised.

        Raises:
          TypeError, ValueError, IndexError: As `pagedkv.ops.gather_pages`.
        """
        return (
            _tokens(gather_pages(self.key_pages, page_table, layer=layer).rows),
            _tokens(gather_pages(self.value_pages, page_table, layer=layer).rows),
        )

    def attend(
        self,
        layer: ArrayLike,
        query: ArrayLike,
        page_table: ArrayLike,
        query_starts: ArrayLike,
        context_lens: ArrayLike,
        *,
        scale: float | None = None,
        sliding_window: ArrayLike | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Attends over the pages of each request in one layer; see `pagedkv.ops.paged_attention`.

        Args:
          layer: int, or int32 scalar array, in ``[0, layers)``.
          query: float32, bfloat16 or float16, shape ``[tokens, heads, head_dim]``.
          page_table: int32, shape ``[requests, width]``.
          query_starts: int32, shape ``[requests + 1]``.
          context_lens: int32, shape ``[requests]``.
          scale: Of the scores; ``head_dim ** -0.5`` without it.
          sliding_window: int, or int32 scalar array: how many tokens each sees, itself among them.
            All without it.

        Returns:
          The dtype of ``query``, shape ``[tokens, heads, head_dim]``, and how many requests and page
          ids were out of range, int32 ``[]``.

        Raises:
          TypeError, ValueError, IndexError: As `pagedkv.ops.paged_attention`.
        """
        attention = paged_attention(
            query,
            self.key_pages,
            self.value_pages,
            page_table,
            query_starts,
            context_lens,
            layer=layer,
            scale=scale,
            sliding_window=sliding_window,
        )
        return attention.output, attention.num_dropped

    def __repr__(self) -> str:
        shape = getattr(split(self.key_pages)[0], "shape", None)
        if shape is None or len(shape) != 5:  # a pytree of something else than arrays
            return f"KVPool({self.key_pages!r}, {self.value_pages!r})"
        return (
            f"KVPool({self.num_layers} layers x {self.num_pages} pages x "
            f"{self.page_size} tokens, {self.num_kv_heads} kv heads x {self.head_dim}, "
            f"{self.dtype}, {self.nbytes / 2**20:.1f} MiB)"
        )


def _tokens(rows: jax.Array) -> jax.Array:
    """``[n, width, page_size, *row]`` to ``[n, width * page_size, *row]``."""
    return rows.reshape(rows.shape[0], rows.shape[1] * rows.shape[2], *rows.shape[3:])
