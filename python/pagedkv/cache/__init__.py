"""The paged cache under the names of EasyDeL 0.1.3, as pytrees that go through every transform."""

from pagedkv.cache import export as _export  # noqa: F401 - registers the types with jax.export
from pagedkv.cache.axes import PartitionAxis
from pagedkv.cache.cache import PagedAttentionCache
from pagedkv.cache.manager import PagedAttentionCacheManager
from pagedkv.cache.metadata import PagedAttentionCacheMetaData
from pagedkv.cache.step import PagedAttentionMetadata
from pagedkv.cache.view import PagedAttentionCacheView

__all__ = [
    "PagedAttentionCache",
    "PagedAttentionCacheManager",
    "PagedAttentionCacheMetaData",
    "PagedAttentionCacheView",
    "PagedAttentionMetadata",
    "PartitionAxis",
]
