"""PagedAttentionCacheView: what is written where, against loops over NumPy arrays."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from pagedkv import PagedAttentionCache, PagedAttentionCacheView, PagedAttentionMetadata
from pagedkv.cache import PartitionAxis
from pagedkv.testing import assert_in_place
from seed_cache_golden import filled, make_metadata, random_rows, written_generate, written_prefill


def make_view(**sizes):
    mesh = jax.make_mesh((1,), ("tp",), devices=jax.devices()[:1])
    return filled(PagedAttentionCacheView.init(mesh, make_metadata(**sizes), 0))


@pytest.fixture
def view():
    return make_view()


def assert_pages(view, expected):
    for pages, wanted in zip((view.key_pages, view.value_pages), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(pages), wanted)


def pages_of(view):
    return np.asarray(view.key_pages), np.asarray(view.value_pages)


def prefill_step(length, table, num_tokens):
    return PagedAttentionMetadata.for_prefill(length, np.int32(table), num_tokens=num_tokens)


def generate_step(positions, tables):
    return PagedAttentionMetadata.for_generate(np.int32(positions), np.int32(tables))


# --- making one -----------------------------------------------------------------------------------


def test_init_makes_zeros_of_the_sizes_asked_for(one_device, metadata):
    view = PagedAttentionCacheView.init(mesh=one_device, metadata=metadata, layer_index=1)
    assert (view.metadata, view.layer_index) == (metadata, 1)
    assert view.key_pages.shape == view.value_pages.shape == (4, 9, 4, 8)
    assert view.key_pages.dtype == view.value_pages.dtype == jnp.float32
    assert not view.key_pages.any()
    assert not view.value_pages.any()
    assert view.key_pages.unsafe_buffer_pointer() != view.value_pages.unsafe_buffer_pointer()
    spec = PartitionSpec("tp", None, None, None)
    assert view.kv_pages_sharding == NamedSharding(one_device, spec)


def test_init_cuts_heads_over_the_head_axis():
    mesh = jax.make_mesh((2, 4), ("dp", "model"))
    axes = SimpleNamespace(head_axis="model")
    view = PagedAttentionCacheView.init(mesh, make_metadata(partition_axis=axes), 0)
    assert view.key_pages.sharding.spec == PartitionSpec("model", None, None, None)
    assert len(view.value_pages.addressable_shards) == 8
    assert {shard.data.shape for shard in view.value_pages.addressable_shards} == {(1, 9, 4, 8)}


def test_init_prefers_the_sharding_given():
    mesh = jax.make_mesh((2, 4), ("dp", "tp"))
    metadata = make_metadata(num_pages_per_layer=8)
    spec = PartitionSpec(None, "dp")
    for sharding in (spec, NamedSharding(mesh, spec)):
        view = PagedAttentionCacheView.init(mesh, metadata, 0, kv_pages_sharding=sharding)
        assert view.kv_pages_sharding == NamedSharding(mesh, spec)
        assert view.key_pages.addressable_shards[0].data.shape == (4, 4, 4, 8)


def test_init_calls_the_quantizer(one_device, metadata):
    calls = []

    def quantizer(pages):
        calls.append(pages.shape)
        return pages.astype(jnp.int8)

    view = PagedAttentionCacheView.init(one_device, metadata, 0, quantizer)
    assert calls == [(4, 9, 4, 8)] * 2
    assert view.key_pages.dtype == view.value_pages.dtype == jnp.int8
    rows = np.full([4, 4, 8], 3.7, np.float32)
    view = view.write_prefill_to_cache(rows, rows, prefill_step(4, [1, 0, 0, 0], 4))
    assert view.key_pages[0, 1].tolist() == [[3] * 8] * 4


def test_init_makes_no_arrays_when_only_shapes_are_asked(one_device, metadata):
    view = jax.eval_shape(lambda: PagedAttentionCacheView.init(one_device, metadata, 0))
    assert isinstance(view.key_pages, jax.ShapeDtypeStruct)
    assert view.metadata == metadata


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"layer_index": 2}, IndexError, "layer_index must be in [0, 2), got 2"),
        ({"layer_index": -1}, IndexError, "layer_index must be in [0, 2), got -1"),
        ({"kv_pages_sharding": PartitionSpec("no")}, ValueError, "mesh axis 'no' of"),
        ({"kv_pages_sharding": "tp"}, TypeError, "must be a PartitionSpec or a NamedSharding"),
        ({"kv_pages_sharding": PartitionSpec(*[None] * 5)}, ValueError, "at most 4 axes"),
        ({"kv_pages_sharding": PartitionSpec(None, None, "tp")}, ValueError, "tokens of a page"),
        ({"kv_pages_sharding": PartitionSpec(None, "tp")}, ValueError, "pages 9 cannot be cut"),
    ],
)
def test_init_refuses(metadata, arguments, error, text):
    mesh = jax.make_mesh((2, 4), ("dp", "tp"))
    with pytest.raises(error, match=r"^\[PagedAttentionCacheView.init\] ") as raised:
        PagedAttentionCacheView.init(mesh, metadata, **{"layer_index": 0, **arguments})
    assert text in str(raised.value)


def test_init_refuses_heads_that_the_mesh_does_not_divide():
    mesh = jax.make_mesh((8,), ("tp",))
    with pytest.raises(ValueError, match="kv_heads 4 cannot be cut into the 8 shards of mesh axis"):
        PagedAttentionCacheView.init(mesh, make_metadata(), 0)
    unsharded = make_metadata(partition_axis=PartitionAxis(head_axis=None))
    assert PagedAttentionCacheView.init(mesh, unsharded, 0).key_pages.shape[0] == 4


def test_is_a_frozen_pytree_of_two_leaves(view):
    leaves, treedef = jax.tree.flatten(view)
    assert leaves[0] is view.key_pages
    assert leaves[1] is view.value_pages
    again = jax.tree.unflatten(treedef, leaves)
    assert (again.metadata, again.layer_index) == (view.metadata, 0)
    assert again.kv_pages_sharding == view.kv_pages_sharding
    assert jax.tree.structure(view) != jax.tree.structure(view.replace(layer_index=1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.key_pages = view.value_pages


def test_repr(view):
    assert repr(view) == "PagedAttentionCacheView(layer_index=0, kv_shape=(4, 9, 4, 8))"
    assert repr(jax.tree.map(lambda _: None, view)).endswith("kv_shape=None)")


# --- writing --------------------------------------------------------------------------------------


@st.composite
def prefills(draw):
    page_size = draw(st.sampled_from([1, 4]))
    num_pages = draw(st.sampled_from([2, 7]))
    num_tokens = draw(st.sampled_from([0, 1, 4])) * page_size
    length = draw(st.integers(-1, num_tokens + page_size))
    # Few lengths, each of which is compiled: none, one, and as many as there can be.
    width = draw(st.sampled_from([0, 1, min(4, num_pages)]))
    table = draw(st.permutations(range(num_pages)))[:width]
    return page_size, num_pages, num_tokens, length, table


@given(prefills(), st.integers(0, 2**32 - 1), st.booleans())
def test_prefill_writes_whole_pages(case, seed, jitted):
    page_size, num_pages, num_tokens, length, table = case
    view = make_view(page_size=page_size, num_pages_per_layer=num_pages)
    key, value = random_rows(np.random.default_rng(seed), num_tokens, 4, 8)
    step = prefill_step(length, table, num_tokens)
    write = PagedAttentionCacheView.write_prefill_to_cache
    written = (jax.jit(write) if jitted else write)(view, key, value, step)
    expected = [
        written_prefill(pages, rows, length, table)
        for pages, rows in zip(pages_of(view), (key, value), strict=True)
    ]
    assert_pages(written, expected)


@st.composite
def generates(draw):
    page_size = draw(st.sampled_from([1, 4]))
    num_pages = draw(st.sampled_from([2, 15]))
    batch = draw(st.sampled_from([0, 1, 3]))
    width = draw(st.sampled_from([0, 1, 4]))
    ids = draw(st.permutations(range(num_pages)))
    tables = np.zeros((batch, width), np.int32)
    used = min(batch * width, num_pages)
    tables.flat[:used] = ids[:used]
    # Page 0 stands for all that do not exist; only one row may write to a page.
    rows = st.integers(-1, (width + 1) * page_size)
    positions = [
        draw(rows.filter(lambda p, t=table: not _is_shared(t, p // page_size, tables)))
        for table in tables
    ]
    return page_size, num_pages, positions, tables


def _is_shared(table, column, tables):
    return 0 <= column < len(table) and (tables == table[column]).sum() > 1


@given(generates(), st.integers(0, 2**32 - 1), st.booleans())
def test_generate_writes_one_slot_of_each_row(case, seed, jitted):
    page_size, num_pages, positions, tables = case
    view = make_view(page_size=page_size, num_pages_per_layer=num_pages)
    key, value = random_rows(np.random.default_rng(seed), len(tables), 4, 8)
    step = generate_step(positions, tables)
    write = PagedAttentionCacheView.write_generate_to_cache
    written = (jax.jit(write) if jitted else write)(view, key, value, step)
    expected = [
        written_generate(pages, rows, positions, tables)
        for pages, rows in zip(pages_of(view), (key, value), strict=True)
    ]
    assert_pages(written, expected)


def test_write_leaves_the_old_view_as_it_is(view):
    before = pages_of(view)
    rows = np.ones([4, 4, 8], np.float32)
    assert view.write_prefill_to_cache(rows, rows, prefill_step(4, [1], 4)) is not view
    view.concatenate_to_cache(rows, rows, prefill_step(4, [1], 4))
    assert_pages(view, before)


BAD_IDS = [9, 10**6, 2**31 - 1, -2, -9, -(2**31), -1]


@pytest.mark.parametrize("page", BAD_IDS)
def test_ids_out_of_range_are_not_written(view, page):
    rows = np.ones([8, 4, 8], np.float32)
    written = view.write_prefill_to_cache(rows, rows, prefill_step(8, [3, page, 0], 8))
    assert_pages(written, [written_prefill(p, rows, 4, [3]) for p in pages_of(view)])
    step = generate_step([4, 0], [[3, page], [page, 3]])
    assert_pages(view.write_generate_to_cache(rows[:2], rows[:2], step), pages_of(view))


def test_positions_out_of_the_table_are_not_written(view):
    rows = np.ones([6, 4, 8], np.float32)
    # EasyDeL 0.1.3 writes the idle row to the last column of its table: here a page in use.
    positions = [-1, -2, -(2**31), 8, 10**7, 2**31 - 1]
    step = generate_step(positions, [[i, i + 1] for i in range(1, 7)])
    assert_pages(view.write_generate_to_cache(rows, rows, step), pages_of(view))


def test_raise_mode_names_the_write(view):
    rows = np.ones([4, 4, 8], np.float32)
    for step in (prefill_step(4, [9], 4), prefill_step(4, [], 4)):
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"\[write_kv\]"):
            view.write_prefill_to_cache(
                rows, rows, step, mode="raise"
            ).key_pages.block_until_ready()
    idle = generate_step([-1, 0, 1, 2], [[0]] + [[1]] * 3)
    view.write_generate_to_cache(rows, rows, idle, mode="raise").key_pages.block_until_ready()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32, np.int16])
def test_takes_any_integers_as_ids(view, dtype):
    rows = np.ones([4, 4, 8], np.float32)
    step = prefill_step(4, [3], 4).replace(
        prefill_length=np.array(3, dtype), prefill_page_table=np.array([3], dtype)
    )
    expected = [written_prefill(p, rows, 3, [3]) for p in pages_of(view)]
    assert_pages(view.write_prefill_to_cache(rows, rows, step), expected)
    step = step.replace(prefill_page_table=np.array([np.iinfo(dtype).max], dtype))
    assert_pages(view.write_prefill_to_cache(rows, rows, step), pages_of(view))


def test_rows_are_cast_to_the_dtype_of_the_pages(one_device):
    view = PagedAttentionCacheView.init(one_device, make_metadata(dtype=jnp.bfloat16), 0)
    rows = np.full([4, 4, 8], 1.2345, np.float32)
    view = view.write_prefill_to_cache(rows, rows, prefill_step(4, [2], 4))
    assert view.key_pages[0, 2, 0, 0] == jnp.bfloat16(1.2345)


# --- concatenate_to_cache -------------------------------------------------------------------------


def test_concatenate_writes_a_prompt(view):
    key, value = random_rows(np.random.default_rng(1), 8, 4, 8)
    step = prefill_step(5, [7, 2, 0, 0], 8)
    for rows in ((key, value), (key[None], value[None])):
        key_pages, value_pages, written = view.concatenate_to_cache(*rows, step)
        assert key_pages is written.key_pages
        assert value_pages is written.value_pages
        assert_pages(written, pages_of(view.write_prefill_to_cache(key, value, step)))


def test_concatenate_writes_new_tokens(view):
    key, value = random_rows(np.random.default_rng(2), 2, 4, 8)
    step = generate_step([5, -1], [[7, 2], [0, 0]])
    written = view.concatenate_to_cache(key, value, cache_metadata=step)[-1]
    assert_pages(written, pages_of(view.write_generate_to_cache(key, value, step)))


def test_concatenate_writes_a_prompt_and_then_new_tokens(view):
    key, value = random_rows(np.random.default_rng(3), 10, 4, 8)
    prompt = prefill_step(5, [7, 2, 0, 0], 8)
    rest = generate_step([5, 0], [[1, 3], [4, 0]])
    mixed = prompt.replace(
        generate_pos=rest.generate_pos, generate_page_table=rest.generate_page_table
    )
    assert mixed.has_prefill
    assert mixed.has_generate
    written = view.concatenate_to_cache(key, value, mixed)[-1]
    apart = view.write_prefill_to_cache(key[:8], value[:8], prompt)
    apart = apart.write_generate_to_cache(key[8:], value[8:], rest)
    assert_pages(written, pages_of(apart))


def test_concatenate_takes_scalars_as_absent_whatever_they_are(view):
    key, value = random_rows(np.random.default_rng(4), 4, 4, 8)
    step = PagedAttentionMetadata(3, np.arange(4), np.int32([2]), 0, 0)
    written = jax.jit(PagedAttentionCacheView.concatenate_to_cache)(view, key, value, step)[-1]
    assert_pages(
        written,
        [written_prefill(p, r, 3, [2]) for p, r in zip(pages_of(view), (key, value), strict=True)],
    )


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda v, r: v.write_prefill_to_cache(r[:3], r[:3], prefill_step(3, [1], 3)),
            ValueError,
            "[PagedAttentionCacheView.write_prefill_to_cache] key must have a multiple of page_size",
        ),
        (
            lambda v, r: v.write_prefill_to_cache(r, r, prefill_step(4, [[1]], 4)),
            ValueError,
            "prefill_page_table must have 1 axes, got [1, 1]",
        ),
        (
            lambda v, r: v.write_prefill_to_cache(
                r, r, prefill_step(4, [1], 4).replace(prefill_length=np.float32(4))
            ),
            TypeError,
            "prefill_length must be integers, got float32",
        ),
        (
            lambda v, r: v.write_prefill_to_cache(r, r, generate_step([0], [[1]])),
            ValueError,
            "prefill_page_table must have 1 axes, got []",
        ),
        (
            lambda v, r: v.write_prefill_to_cache(r[:, :2], r, prefill_step(4, [1], 4)),
            ValueError,
            "key must have shape [4, 4, 8], got [4, 2, 8]",
        ),
        (
            lambda v, r: v.write_prefill_to_cache(r, r[..., :4], prefill_step(4, [1], 4)),
            ValueError,
            "value must have shape [4, 4, 8], got [4, 4, 4]",
        ),
        (
            lambda v, r: v.write_prefill_to_cache(r[0], r[0], prefill_step(4, [1], 4)),
            ValueError,
            "key must have shape [tokens, kv_heads, head_dim], got [4, 8]",
        ),
        (
            lambda v, r: v.write_prefill_to_cache(r.tolist(), r, prefill_step(4, [1], 4)),
            TypeError,
            "key must be an array, got list",
        ),
        (
            lambda v, r: v.write_generate_to_cache(r, r, generate_step([0], [[1]])),
            ValueError,
            "[PagedAttentionCacheView.write_generate_to_cache] generate_pos must have 4 rows as key",
        ),
        (
            lambda v, r: v.write_generate_to_cache(r, r, generate_step([0] * 4, [[1]])),
            ValueError,
            "generate_page_table must have 4 rows as key, got 1",
        ),
        (
            lambda v, r: v.concatenate_to_cache(r, r, PagedAttentionMetadata._init_decode_state()),
            ValueError,
            "[PagedAttentionCacheView.concatenate_to_cache] cache_metadata has neither a prompt nor",
        ),
        (
            lambda v, r: v.concatenate_to_cache(
                r, r, prefill_step(4, [1, 2], 8).replace(generate_pos=np.int32([0]))
            ),
            ValueError,
            "key must have the 8 tokens of the prompt and those of the rows, got 4",
        ),
        (
            lambda v, r: v.replace(key_pages=None).concatenate_to_cache(
                r, r, prefill_step(4, [1], 4)
            ),
            TypeError,
            "key_pages must be an array, got NoneType",
        ),
        (
            lambda v, r: v.write_prefill_to_cache(r, r, prefill_step(4, [1], 4), mode="clamp"),
            ValueError,
            "mode must be 'drop' or 'raise', got 'clamp'",
        ),
    ],
)
def test_refuses(view, call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call(view, np.ones([4, 4, 8], np.float32))


# --- the cache of all layers ----------------------------------------------------------------------


def test_cache_has_a_view_of_each_layer(one_device, metadata):
    cache = PagedAttentionCache.init_cache(mesh=one_device, metadata=metadata)
    assert [view.layer_index for view in cache.views] == [0, 1]
    assert len({leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(cache)}) == 4
    assert "2 layers, kv_shape=(4, 9, 4, 8)" in repr(cache)
    assert "kv_shape=None" in repr(jax.tree.map(lambda _: None, cache))
    assert "0 layers" in repr(cache.replace(views=[]))


def test_cache_passes_quantizer_and_sharding_on(metadata):
    mesh = jax.make_mesh((2, 2), ("dp", "tp"), devices=jax.devices()[:4])
    spec = PartitionSpec("dp")
    cache = PagedAttentionCache.init_cache(mesh, metadata, lambda p: p + 1, spec)
    for view in cache.views:
        assert view.kv_pages_sharding.spec == spec
        assert (view.key_pages == 1).all()


def test_cache_replaces_a_view(one_device, metadata):
    cache = PagedAttentionCache.init_cache(one_device, metadata)
    view = filled(cache.views[1])
    replaced = cache.replace_view(view)
    assert replaced.views[0] is cache.views[0]
    assert replaced.views[1] is view
    assert cache.views[1] is not view


def test_cache_refuses_a_view_of_no_layer(one_device, metadata):
    cache = PagedAttentionCache.init_cache(one_device, metadata)
    for index in (-1, len(cache.views)):
        view = cache.views[0].replace(layer_index=index)
        with pytest.raises(
            IndexError, match=rf"\[PagedAttentionCache.replace_view\] .*got {index}"
        ):
            cache.replace_view(view)


def test_no_cache_is_empty(one_device, metadata):
    assert PagedAttentionCache.init_empty() is None
    assert PagedAttentionCache.init_cache(one_device, metadata).init_empty(3, a=4) is None


def test_step_over_all_layers_is_in_place(one_device):
    metadata = make_metadata(
        dtype=jnp.bfloat16, num_pages_per_layer=128, page_size=16, kv_head_dim_size=64
    )
    cache = PagedAttentionCache.init_cache(one_device, metadata)

    def step(cache, rows, step):
        for view in cache.views:
            *_, view = view.concatenate_to_cache(rows, rows + 1, step)
            cache = cache.replace_view(view)
        return cache

    rows = jnp.ones([3, 4, 64], jnp.bfloat16)
    decode = generate_step([0, 17, -1], [[1, 0], [2, 3], [0, 0]])
    jitted = jax.jit(step, donate_argnums=0)
    assert_in_place(jitted, cache, rows, decode, pools=cache)
    before = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(cache)]
    cache = jitted(cache, rows, decode)
    assert [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(cache)] == before
    assert [bool((view.value_pages[:, 3, 1] == 2).all()) for view in cache.views] == [True] * 2
