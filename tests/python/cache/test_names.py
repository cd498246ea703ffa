"""The names of the paged cache are there without JAX being imported for others."""

import subprocess
import sys

import pagedkv
import pagedkv.cache
import pytest
from pagedkv.compat import easydel_0_1_3

NAMES = [
    "PagedAttentionCache",
    "PagedAttentionCacheManager",
    "PagedAttentionCacheMetaData",
    "PagedAttentionCacheView",
    "PagedAttentionMetadata",
]


@pytest.mark.parametrize("name", NAMES)
def test_is_in_both_places(name):
    assert getattr(pagedkv, name) is getattr(pagedkv.cache, name)
    assert name in easydel_0_1_3.__all__


def test_jax_is_imported_when_a_name_is_used():
    program = (
        "import sys, pagedkv; assert 'jax' not in sys.modules; "
        "pagedkv.PagedAttentionCacheManager; assert 'jax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'PagedCache'"):
        _ = pagedkv.PagedCache
