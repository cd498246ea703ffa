"""The ops in pure jnp: what the handlers must equal, and the code for platforms without one.

All take ``layer`` as an int32 scalar and pools with or without a layer axis, as ``layered`` says.
"""

from pagedkv.ops._reference._attention import paged_attention as paged_attention
from pagedkv.ops._reference._pages import copy_pages as copy_pages
from pagedkv.ops._reference._pages import gather_into as gather_into
from pagedkv.ops._reference._pages import gather_pages as gather_pages
from pagedkv.ops._reference._pages import gather_through as gather_through
from pagedkv.ops._reference._pages import pages_to_rows as pages_to_rows
from pagedkv.ops._reference._pages import rows_to_pages as rows_to_pages
from pagedkv.ops._reference._pages import scatter_pages as scatter_pages
from pagedkv.ops._reference._quantized import gather_dequantized as gather_dequantized
from pagedkv.ops._reference._quantized import write_kv_quantized as write_kv_quantized
from pagedkv.ops._reference._write_kv import write_kv as write_kv
