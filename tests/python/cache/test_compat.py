"""pagedkv.compat.easydel_0_1_3: writes change the view, as code made for EasyDeL 0.1.3 expects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pagedkv import PagedAttentionMetadata
from pagedkv.compat import easydel_0_1_3
from seed_cache_golden import make_metadata, random_rows, written_generate, written_prefill


@pytest.fixture
def cache(one_device):
    return easydel_0_1_3.PagedAttentionCache.init_cache(one_device, make_metadata())


def test_each_write_changes_the_view_it_is_called_on(cache):
    view = cache.views[1]
    assert type(view) is easydel_0_1_3.PagedAttentionCacheView
    key, value = random_rows(np.random.default_rng(0), 8, 4, 8)
    prompt = PagedAttentionMetadata.for_prefill(8, np.int32([3, 1]), num_tokens=8)
    decode = PagedAttentionMetadata.for_generate(np.int32([8]), np.int32([[3, 1, 4]]))

    assert view.write_prefill_to_cache(key, value, prompt) is view
    expected = written_prefill(np.zeros([4, 9, 4, 8]), key, 8, [3, 1])
    np.testing.assert_array_equal(np.asarray(view.key_pages), expected)

    assert view.write_generate_to_cache(key[:1], value[:1], decode) is view
    expected = written_generate(expected, key[:1], [8], [[3, 1, 4]])
    np.testing.assert_array_equal(np.asarray(view.key_pages), expected)

    key_pages, value_pages, written = view.concatenate_to_cache(-key, value, prompt)
    assert written is view
    assert key_pages is view.key_pages
    assert value_pages is view.value_pages
    expected = written_prefill(expected, -key, 8, [3, 1])
    np.testing.assert_array_equal(np.asarray(view.key_pages), expected)
    assert not np.asarray(cache.views[0].key_pages).any()


def test_a_write_that_raises_changes_nothing(cache):
    view = cache.views[0]
    before = view.key_pages
    prompt = PagedAttentionMetadata.for_prefill(3, np.int32([3]), num_tokens=3)
    with pytest.raises(ValueError, match="multiple of page_size"):
        view.write_prefill_to_cache(np.ones([3, 4, 8]), np.ones([3, 4, 8]), prompt)
    assert view.key_pages is before


def test_fields_can_be_set(cache):
    view = cache.views[0]
    view.key_pages = view.key_pages + 1
    assert np.asarray(view.key_pages).min() == 1
    assert view.replace(layer_index=1).layer_index == 1


def test_goes_through_jit_and_scan(cache):
    rows = jnp.ones([1, 4, 8])

    @jax.jit
    def run(cache):
        def body(cache, position):
            step = PagedAttentionMetadata.for_generate(position[None], jnp.int32([[2, 5]]))
            for view in cache.views:
                view.write_generate_to_cache(rows, 2 * rows, step)
            return cache, None

        return jax.lax.scan(body, cache, jnp.arange(6, dtype=jnp.int32))[0]

    written = run(cache)
    assert type(written) is easydel_0_1_3.PagedAttentionCache
    for view in written.views:
        assert type(view) is easydel_0_1_3.PagedAttentionCacheView
        assert np.asarray(view.value_pages)[0, [2, 5], :, 0].tolist() == [[2] * 4, [2, 2, 0, 0]]
    assert not np.asarray(cache.views[0].key_pages).any()
