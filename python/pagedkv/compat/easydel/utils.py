"""`easydel.inference.esurge.core.utils`: pages and their hashes."""

from pagedkv.hashing import PageHash as PageHash
from pagedkv.hashing import PageHashWithGroupId as PageHashWithGroupId
from pagedkv.hashing import hash_page_tokens as hash_page_tokens
from pagedkv.hashing import hash_request_tokens as hash_request_tokens
from pagedkv.hashing import init_none_hash as init_none_hash
from pagedkv.pages import CachePage as CachePage
from pagedkv.pages import FreeCachePageQueue as FreeCachePageQueue
