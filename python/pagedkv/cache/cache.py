"""The pages of all layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pagedkv.cache.metadata import PagedAttentionCacheMetaData
from pagedkv.cache.view import PagedAttentionCacheView, Quantizer


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class PagedAttentionCache:
    """The pages of all layers: a view of each.

    The names are EasyDeL 0.1.3's. A pytree with two leaves a layer, made to be donated to a jitted
    step. `pagedkv.KVPool` has the pages of all layers in two leaves, which is cheaper to dispatch.

    Attributes:
      views: One `PagedAttentionCacheView` a layer, in order.
    """

    views: Sequence[Any]

    view_type: ClassVar[type[PagedAttentionCacheView]] = PagedAttentionCacheView

    @classmethod
    def init_cache(
        cls,
        mesh: Mesh,
        metadata: PagedAttentionCacheMetaData,
        quantizer: Quantizer | None = None,
        kv_pages_sharding: PartitionSpec | NamedSharding | None = None,
    ) -> Self:
        """Makes ``metadata.num_hidden_layers`` views of zeros; see `PagedAttentionCacheView.init`.

        Args:
          mesh: The devices.
          metadata: The sizes.
          quantizer: As of `PagedAttentionCacheView.init`.
          kv_pages_sharding: As there.

        Raises:
          TypeError, ValueError: As there.
        """
        return cls(
            views=[
                cls.view_type.init(mesh, metadata, layer_index, quantizer, kv_pages_sharding)
                for layer_index in range(metadata.num_hidden_layers)
            ]
        )

    @classmethod
    def init_empty(cls, *args: Any, **kwargs: Any) -> None:
        """Returns None, whatever it is given, as EasyDeL 0.1.3's: no paged cache is partly there."""

    def replace_view(self, view: PagedAttentionCacheView) -> Self:
        """Returns the cache with ``view`` as that of layer ``view.layer_index``.

        Raises:
          IndexError: If the cache has no such layer.
        """
        index = view.layer_index
        if not 0 <= index < len(self.views):
            raise IndexError(
                f"[{type(self).__name__}.replace_view] layer_index must be in "
                f"[0, {len(self.views)}), got {index}"
            )
        return replace(self, views=[*self.views[:index], view, *self.views[index + 1 :]])

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with other ``views``."""
        return replace(self, **changes)

    def __repr__(self) -> str:
        last = self.views[-1] if self.views else None
        shape = getattr(getattr(last, "key_pages", None), "shape", None)
        sharding = getattr(last, "kv_pages_sharding", None)
        return (
            f"{type(self).__name__}({len(self.views)} layers, kv_shape={shape}, "
            f"kv_pages_sharding={sharding})"
        )
