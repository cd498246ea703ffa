"""The key and value pages of one layer."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from pagedkv.cache.axes import PartitionAxis, padded, pages_sharding
from pagedkv.cache.metadata import PagedAttentionCacheMetaData
from pagedkv.cache.sharded import write_rows
from pagedkv.cache.slots import generate_slots, prefill_slots
from pagedkv.cache.step import PagedAttentionMetadata
from pagedkv.ops._checks import Mode, as_array

Quantizer = Callable[[jax.Array], Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class PagedAttentionCacheView:
    """The key and value pages of one layer.

    The names, the shapes and what is written where are EasyDeL 0.1.3's. A pytree with the two page
    tensors as leaves, and functional: a write returns a new view and leaves the old one as it is.
    In a jitted function with the view donated it is in place.
    `pagedkv.compat.easydel_0_1_3` has a view that changes itself, as EasyDeL 0.1.3's does.

    Attributes:
      metadata: The sizes.
      layer_index: Which layer it is.
      key_pages: Shape ``[kv_heads, pages, page_size, head_dim]``.
      value_pages: The same shape and dtype.
      kv_pages_sharding: A `NamedSharding` of both page tensors, or None if they are not cut.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from pagedkv import (
      ...     PagedAttentionCacheMetaData, PagedAttentionCacheView, PagedAttentionMetadata,
      ... )
      >>> from pagedkv.cache import PartitionAxis
      >>> mesh = jax.make_mesh((1,), ("tp",))
      >>> metadata = PagedAttentionCacheMetaData.create(
      ...     mesh, PartitionAxis(), batch_size=1, num_hidden_layers=1, max_sequences=16,
      ...     page_size=4, num_kv_heads=2, kv_head_dim_size=8, hbm_utilization=0.5,
      ...     dtype=jnp.float32, hbm_bytes=2**14,
      ... )
      >>> view = PagedAttentionCacheView.init(mesh, metadata, layer_index=0)
      >>> prompt = jnp.ones([8, 2, 8])
      >>> step = PagedAttentionMetadata.for_prefill(5, jnp.int32([3, 1, 0, 0]), num_tokens=8)
      >>> write = jax.jit(PagedAttentionCacheView.write_prefill_to_cache, donate_argnums=0)
      >>> view = write(view, prompt, 2 * prompt, step)
      >>> view.key_pages[0, :, 0, 0].tolist()[:5]
      [0.0, 1.0, 0.0, 1.0, 0.0]
    """

    metadata: PagedAttentionCacheMetaData = field(metadata={"static": True})
    layer_index: int = field(metadata={"static": True})
    key_pages: Any
    value_pages: Any
    kv_pages_sharding: NamedSharding | None = field(metadata={"static": True})

    @classmethod
    def init(
        cls,
        mesh: Mesh,
        metadata: PagedAttentionCacheMetaData,
        layer_index: int,
        quantizer: Quantizer | None = None,
        kv_pages_sharding: PartitionSpec | NamedSharding | None = None,
    ) -> Self:
        """Makes pages of zeros, each device its own part of them.

        Args:
          mesh: The devices.
          metadata: The sizes.
          layer_index: In ``[0, num_hidden_layers)``.
          quantizer: Called with each page tensor; what it returns is kept in its place. Rows are
            cast to the dtype of that when they are written. None: the tensor itself.
          kv_pages_sharding: How both are cut. Without it, ``PartitionSpec(head_axis, None, None,
            None)`` with the ``head_axis`` of ``metadata.partition_axis``. The tokens of a page
            cannot be cut.

        Raises:
          TypeError: If an argument has the wrong type.
          ValueError: If the mesh lacks an axis, or its size does not divide that of the tensor.
          IndexError: If there is no such layer.
        """
        operation = f"{cls.__name__}.init"
        if not 0 <= layer_index < metadata.num_hidden_layers:
            raise IndexError(
                f"[{operation}] layer_index must be in [0, {metadata.num_hidden_layers}), "
                f"got {layer_index}"
            )
        shape = metadata.pages_shape
        if kv_pages_sharding is None:
            head_axis = PartitionAxis.of(metadata.partition_axis).head_axis
            kv_pages_sharding = PartitionSpec(head_axis, None, None, None)
        sharding = pages_sharding(operation, mesh, kv_pages_sharding, shape)
        # An entry for each axis, which is how programs return them: the next step finds its own.
        device = sharding.update(spec=PartitionSpec(*padded(sharding.spec)))
        pools = [jnp.zeros(shape, metadata.dtype, device=device) for _ in range(2)]
        key_pages, value_pages = pools if quantizer is None else map(quantizer, pools)
        return cls(metadata, layer_index, key_pages, value_pages, sharding)

    def write_prefill_to_cache(
        self,
        key: ArrayLike,
        value: ArrayLike,
        metadata: PagedAttentionMetadata,
        *,
        mode: Mode = "drop",
    ) -> Self:
        """Writes a prompt: its page ``i`` to page ``metadata.prefill_page_table[i]``.

        The pages up to that of token ``prefill_length - 1`` are written whole, padding too. Page
        ids that are not in the pool, or pages that the table has no id of, are not written.
        EasyDeL 0.1.3 writes them over the last page instead.

        Args:
          key: Shape ``[tokens, kv_heads, head_dim]``, ``tokens`` a multiple of ``page_size``. Cast
            to the dtype of the pages.
          value: The same shape.
          metadata: Of a step with a prompt.
          mode: What becomes of ids out of range; see `pagedkv.ops.write_kv`.

        Returns:
          The view with the new pages.

        Raises:
          TypeError: If an operand is no array, or ids are no integers.
          ValueError: If shapes do not fit together.
        """
        operation = f"{type(self).__name__}.write_prefill_to_cache"
        num_pages, page_size, num_tokens = self._sizes(operation, key)
        slots = prefill_slots(
            operation,
            metadata.prefill_length,
            metadata.prefill_page_table,
            num_tokens,
            num_pages,
            page_size,
        )
        return self._write(operation, key, value, slots, mode)

    def write_generate_to_cache(
        self,
        key: ArrayLike,
        value: ArrayLike,
        metadata: PagedAttentionMetadata,
        *,
        mode: Mode = "drop",
    ) -> Self:
        """Writes a new token of each row, at position ``metadata.generate_pos[row]``.

        That is slot ``pos % page_size`` of page ``generate_page_table[row, pos // page_size]``.
        Idle rows, at position -1, are not written. EasyDeL 0.1.3 writes them to the page in the
        last column of their table, which is the dummy page unless the table is full. Neither are
        page ids out of range, and positions beyond the table, which it writes over other pages.

        Args:
          key: Shape ``[batch, kv_heads, head_dim]``. Cast to the dtype of the pages.
          value: The same shape.
          metadata: Of a step with new tokens.
          mode: What becomes of ids out of range; see `pagedkv.ops.write_kv`.

        Returns:
          The view with the new pages.

        Raises:
          TypeError: If an operand is no array, or ids are no integers.
          ValueError: If shapes do not fit together.
        """
        operation = f"{type(self).__name__}.write_generate_to_cache"
        num_pages, page_size, num_tokens = self._sizes(operation, key)
        slots = generate_slots(
            operation,
            metadata.generate_pos,
            metadata.generate_page_table,
            num_tokens,
            num_pages,
            page_size,
        )
        return self._write(operation, key, value, slots, mode)

    def concatenate_to_cache(
        self,
        key: ArrayLike,
        value: ArrayLike,
        cache_metadata: PagedAttentionMetadata,
        *,
        mode: Mode = "drop",
    ) -> tuple[Any, Any, Self]:
        """Writes the tokens of a step: those of a prompt, new ones of rows, or first those, then these.

        Which of them follows from ``cache_metadata``, as in EasyDeL 0.1.3's attention; its own
        `concatenate_to_cache` raises NotImplementedError.

        Args:
          key: Shape ``[tokens, kv_heads, head_dim]``, with or without a first axis of size 1. The
            first ``prefill_pos.shape[0]`` tokens are those of the prompt.
          value: The same shape.
          cache_metadata: Of the step.
          mode: What becomes of ids out of range; see `pagedkv.ops.write_kv`.

        Returns:
          ``key_pages``, ``value_pages`` and the view that has them: what attention reads, and what
          the next step writes.

        Raises:
          TypeError: If an operand is no array, or ids are no integers.
          ValueError: If the step has no tokens, or shapes do not fit together.
        """
        operation = f"{type(self).__name__}.concatenate_to_cache"
        key, value = (_without_batch(rows) for rows in (key, value))
        num_pages, page_size, num_tokens = self._sizes(operation, key)
        step = cache_metadata
        if not (step.has_prefill or step.has_generate):
            raise ValueError(f"[{operation}] cache_metadata has neither a prompt nor new tokens")
        num_prompt = 0
        slots = []
        if step.has_prefill:
            num_prompt = np.shape(step.prefill_pos)[0] if step.has_generate else num_tokens
            if num_prompt > num_tokens:
                raise ValueError(
                    f"[{operation}] key must have the {num_prompt} tokens of the prompt and those "
                    f"of the rows, got {num_tokens}"
                )
            length, table = step.prefill_length, step.prefill_page_table
            slots += [prefill_slots(operation, length, table, num_prompt, num_pages, page_size)]
        if step.has_generate:
            rest = num_tokens - num_prompt
            pos, table = step.generate_pos, step.generate_page_table
            slots += [generate_slots(operation, pos, table, rest, num_pages, page_size)]
        view = self._write(operation, key, value, jnp.concatenate(slots), mode)
        return view.key_pages, view.value_pages, view

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with other values of some fields."""
        return replace(self, **changes)

    def _sizes(self, operation: str, key: ArrayLike) -> tuple[int, int, int]:
        """Pages, their tokens, and the tokens of ``key``."""
        pages = as_array(operation, "key_pages", self.key_pages)
        shape = as_array(operation, "key", key).shape
        if len(shape) != 3:
            raise ValueError(
                f"[{operation}] key must have shape [tokens, kv_heads, head_dim], got {list(shape)}"
            )
        return pages.shape[1], pages.shape[2], shape[0]

    def _write(
        self, operation: str, key: ArrayLike, value: ArrayLike, slots: jax.Array, mode: Mode
    ) -> Self:
        pools = {"key": self.key_pages, "value": self.value_pages}
        rows = []
        for (name, pool), given in zip(pools.items(), (key, value), strict=True):
            pages = as_array(operation, f"{name}_pages", pool)
            wanted = (slots.shape[0], pages.shape[0], pages.shape[3])
            shape = as_array(operation, name, given).shape
            if shape != wanted:
                raise ValueError(
                    f"[{operation}] {name} must have shape {list(wanted)}, got {list(shape)}"
                )
            rows.append(jnp.asarray(given).astype(pages.dtype))
        key_pages, value_pages = write_rows(
            self.key_pages,
            self.value_pages,
            *rows,
            slots,
            sharding=self.kv_pages_sharding,
            mode=mode,
        )
        return replace(self, key_pages=key_pages, value_pages=value_pages)

    def __repr__(self) -> str:
        shape = getattr(self.key_pages, "shape", None)
        return f"{type(self).__name__}(layer_index={self.layer_index}, kv_shape={shape})"


def _without_batch(rows: ArrayLike) -> ArrayLike:
    if getattr(rows, "ndim", 0) == 4 and rows.shape[0] == 1:  # type: ignore[union-attr]
        return rows[0]  # type: ignore[index]
    return rows
