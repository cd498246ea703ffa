"""The paged cache of EasyDeL 0.1.3, writes that change the view included.

The same names as in `pagedkv`. What differs is the view: there, a write returns a new one and
leaves the old one as it is. EasyDeL 0.1.3's attention instead calls a write for its effect, and
reads the pages off the view that it called; so here a write changes the view, and returns it. Code
made for EasyDeL 0.1.3 runs on these unchanged; new code has no reason to use them.
"""

from typing import Any, ClassVar, Self

import jax
from jax.typing import ArrayLike

from pagedkv.cache import PagedAttentionCache as _Cache
from pagedkv.cache import (
    PagedAttentionCacheManager,
    PagedAttentionCacheMetaData,
    PagedAttentionMetadata,
)
from pagedkv.cache import PagedAttentionCacheView as _View
from pagedkv.cache.export import register_container, register_view
from pagedkv.ops._checks import Mode

__all__ = [
    "PagedAttentionCache",
    "PagedAttentionCacheManager",
    "PagedAttentionCacheMetaData",
    "PagedAttentionCacheView",
    "PagedAttentionMetadata",
]


class PagedAttentionCacheView(_View):
    """`pagedkv.PagedAttentionCacheView`, but its writes change it, and its fields can be set.

    A pytree like it. Inside a jitted function the view is a copy, so the function must return it.
    """

    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def write_prefill_to_cache(
        self,
        key: ArrayLike,
        value: ArrayLike,
        metadata: PagedAttentionMetadata,
        *,
        mode: Mode = "drop",
    ) -> Self:
        """As there, but changes the view. Returns it, as EasyDeL does from 0.1.4 on."""
        return self._become(super().write_prefill_to_cache(key, value, metadata, mode=mode))

    def write_generate_to_cache(
        self,
        key: ArrayLike,
        value: ArrayLike,
        metadata: PagedAttentionMetadata,
        *,
        mode: Mode = "drop",
    ) -> Self:
        """As there, but changes the view. Returns it, as EasyDeL does from 0.1.4 on."""
        return self._become(super().write_generate_to_cache(key, value, metadata, mode=mode))

    def concatenate_to_cache(
        self,
        key: ArrayLike,
        value: ArrayLike,
        cache_metadata: PagedAttentionMetadata,
        *,
        mode: Mode = "drop",
    ) -> tuple[Any, Any, Self]:
        """As there, but changes the view, and returns it as the last."""
        *_, written = super().concatenate_to_cache(key, value, cache_metadata, mode=mode)
        view = self._become(written)
        return view.key_pages, view.value_pages, view

    def _become(self, view: Self) -> Self:
        vars(self).update(vars(view))
        return self


class PagedAttentionCache(_Cache):
    """`pagedkv.PagedAttentionCache`, of views that change themselves."""

    view_type: ClassVar[type[_View]] = PagedAttentionCacheView


jax.tree_util.register_dataclass(
    PagedAttentionCacheView,
    data_fields=["key_pages", "value_pages"],
    meta_fields=["metadata", "layer_index", "kv_pages_sharding"],
)
register_view(PagedAttentionCacheView, f"{__name__}.PagedAttentionCacheView")
jax.tree_util.register_dataclass(PagedAttentionCache, data_fields=["views"], meta_fields=[])
register_container(PagedAttentionCache, f"{__name__}.PagedAttentionCache")
