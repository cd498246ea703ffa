"""Paged KV-cache engine for JAX serving stacks.

The control plane (`CacheManager` and what it is made of) needs no JAX and is imported here. The
data plane, the JAX ops that write and read pages, is in `pagedkv.ops`.
"""

from pagedkv._core import AttentionSpec as AttentionSpec
from pagedkv._core import CacheGroupSpec as CacheGroupSpec
from pagedkv._core import CacheManager as CacheManager
from pagedkv._core import CacheSpec as CacheSpec
from pagedkv._core import FullAttentionSpec as FullAttentionSpec
from pagedkv._core import MultimodalItem as MultimodalItem
from pagedkv._core import PageHasher as PageHasher
from pagedkv._core import PagePool as PagePool
from pagedkv._core import PromptEmbeds as PromptEmbeds
from pagedkv._core import Request as Request
from pagedkv._core import hash_algorithms as hash_algorithms
from pagedkv._core import hash_page as hash_page
from pagedkv._core import none_hash as none_hash
