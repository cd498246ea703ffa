"""The paged cache next to EasyDeL 0.1.3's own code, and where it differs on purpose.

docs/paged_attention_cache.md lists the differences.
"""

from types import SimpleNamespace

import easydel_seed
import jax
import jax.numpy as jnp
import numpy as np
import pagedkv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from pagedkv.compat import easydel_0_1_3


@pytest.fixture(scope="module")
def seed():
    return easydel_seed.load(easydel_seed.find_wheel())


@pytest.fixture(params=["pagedkv", "compat"])
def ours(request):
    return {"pagedkv": pagedkv, "compat": easydel_0_1_3}[request.param]


def make_mesh():
    return jax.make_mesh((1,), ("tp",), devices=jax.devices()[:1])


# --- sizes ----------------------------------------------------------------------------------------


class Device:
    process_index = 0

    def __init__(self, limit, in_use):
        self.stats = {"bytes_reservable_limit": limit, "bytes_in_use": in_use}

    def memory_stats(self):
        return self.stats


SIZE = st.integers(-1, 40)


@settings(deadline=None)
@given(
    sizes=st.tuples(SIZE, SIZE, SIZE, SIZE, SIZE, SIZE),
    utilization=st.floats(-0.1, 1.1),
    limit=st.integers(0, 2**36),
    in_use=st.integers(0, 2**30),
    num_devices=st.integers(1, 8),
    dtype=st.sampled_from([jnp.bfloat16, jnp.float32, jnp.int8]),
)
def test_create_computes_the_same(seed, sizes, utilization, limit, in_use, num_devices, dtype):
    names = ("batch_size", "num_hidden_layers", "max_sequences", "page_size", "num_kv_heads")
    arguments = dict(zip((*names, "kv_head_dim_size"), sizes, strict=True))
    devices = np.array([Device(limit, in_use) for _ in range(num_devices)])
    mesh = SimpleNamespace(devices=devices, local_devices=list(devices))
    arguments |= {
        "mesh": mesh,
        "partition_axis": easydel_seed.PartitionAxis(),
        "hbm_utilization": utilization,
        "dtype": dtype,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seed.jax, "devices", lambda: list(devices))
        try:
            theirs = seed.PagedAttentionCacheMetaData.create(**arguments)
        except ValueError:
            with pytest.raises(ValueError, match=r"^\[PagedAttentionCacheMetaData.create\] "):
                pagedkv.PagedAttentionCacheMetaData.create(**arguments)
            return
    if theirs.num_pages_per_layer < 2:  # a cache that can hold nothing
        with pytest.raises(ValueError, match="have no room for 2 pages"):
            pagedkv.PagedAttentionCacheMetaData.create(**arguments)
        return
    mine = pagedkv.PagedAttentionCacheMetaData.create(**arguments)
    for name in vars(theirs):
        assert getattr(mine, name) == getattr(theirs, name), name


def test_create_fails_there_without_memory_stats(seed):
    arguments = {
        "mesh": make_mesh(),
        "partition_axis": easydel_seed.PartitionAxis(),
        "batch_size": 1,
        "num_hidden_layers": 1,
        "max_sequences": 1,
        "page_size": 1,
        "num_kv_heads": 1,
        "kv_head_dim_size": 1,
        "hbm_utilization": 0.9999,
    }
    if jax.devices()[0].memory_stats() is not None:
        pytest.skip("needs a device that reports no memory")
    with pytest.raises(TypeError):
        seed.PagedAttentionCacheMetaData.create(**arguments)
    assert pagedkv.PagedAttentionCacheMetaData.create(**arguments).num_pages_per_layer > 1


# --- pages ----------------------------------------------------------------------------------------

FIELDS = {
    "dtype": jnp.float32,
    "batch_size": 3,
    "num_hidden_layers": 2,
    "num_pages_per_sequence": 4,
    "max_sequences": 16,
    "num_kv_heads": 2,
    "kv_head_dim_size": 4,
    "hbm_utilization": 0.5,
    "hbm_bytes": 0,
}


def caches(seed, ours, *, num_pages=9, page_size=4, dtype=jnp.float32):
    """A cache of each side, of zeros."""
    made = []
    for module in (seed, ours):
        metadata = module.PagedAttentionCacheMetaData(
            partition_axis=easydel_seed.PartitionAxis(),
            num_pages_per_layer=num_pages,
            page_size=page_size,
            **{**FIELDS, "dtype": dtype},
        )
        with easydel_seed.replaced():
            made.append(module.PagedAttentionCache.init_cache(make_mesh(), metadata))
    return made


def auto_views(*views):
    """With pages on an ordinary mesh: EasyDeL's scatter cannot do with types that say shardings."""
    mesh = jax.make_mesh(
        (1,), ("tp",), devices=jax.devices()[:1], axis_types=(jax.sharding.AxisType.Auto,)
    )
    sharding = NamedSharding(mesh, PartitionSpec("tp", None, None, None))
    for view in views:
        changes = {
            name: jax.device_put(np.asarray(getattr(view, name)), sharding)
            for name in ("key_pages", "value_pages")
        }
        fields = {**vars(view), **changes, "kv_pages_sharding": sharding}
        yield type(view)(**fields)


def write(view, method, *arguments):
    """The view after a write, whether that changes it or gives a new one."""
    result = getattr(view, method)(*arguments)
    return view if result is None else result


def test_init_cache_makes_the_same(seed, ours):
    theirs, mine = caches(seed, ours)
    assert len(theirs.views) == len(mine.views)
    for a, b in zip(theirs.views, mine.views, strict=True):
        assert (a.layer_index, a.kv_pages_sharding) == (b.layer_index, b.kv_pages_sharding)
        assert a.key_pages.sharding == b.key_pages.sharding
        for name in ("key_pages", "value_pages"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    assert theirs.init_empty(1, a=2) is mine.init_empty(1, a=2) is None


def assert_same_pages(theirs, mine, *, dummy):
    first = 0 if dummy else 1
    for name in ("key_pages", "value_pages"):
        wanted, got = (np.asarray(getattr(view, name)) for view in (theirs, mine))
        np.testing.assert_array_equal(got[:, first:], wanted[:, first:])


@st.composite
def traffic(draw):
    """A pool, and prompts and decodes whose ids and positions are in range."""
    page_size = draw(st.sampled_from([1, 3]))
    num_pages = draw(st.sampled_from([2, 12]))
    steps = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            width = draw(st.integers(1, num_pages - 1))
            table = draw(st.permutations(range(1, num_pages)))[:width]
            num_tokens = width * page_size
            length = draw(st.integers(0, num_tokens))
            table = [*table, *[0] * draw(st.integers(0, 3))]
            steps.append(("prefill", length, table, num_tokens))
        else:
            batch = draw(st.integers(1, 3))
            ids = draw(st.permutations(range(1, num_pages)))
            width = (num_pages - 1) // batch
            if width == 0:
                continue
            tables = np.zeros((batch, width + 1), np.int32)
            positions = []
            for row in range(batch):
                tables[row, :width] = ids[row * width : (row + 1) * width]
                positions.append(draw(st.integers(-1, width * page_size - 1)))
            steps.append(("generate", positions, tables, batch))
    return page_size, num_pages, steps


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("ours", [pagedkv, easydel_0_1_3], ids=["pagedkv", "compat"])
@settings(deadline=None, max_examples=8)  # most compile anew
@given(case=traffic(), number=st.integers(0, 2**32 - 1))
def test_writes_the_same_pages(seed, ours, dtype, case, number):
    page_size, num_pages, steps = case
    made = caches(seed, ours, num_pages=num_pages, page_size=page_size, dtype=dtype)
    theirs, mine = auto_views(*(cache.views[1] for cache in made))
    rng = np.random.default_rng(number)
    for kind, where, table, num_tokens in steps:
        key, value = rng.standard_normal((2, num_tokens, 2, 4)).astype(np.float32)
        views = []
        for module, view in ((seed, theirs), (ours, mine)):
            if kind == "prefill":
                step = module.PagedAttentionMetadata(
                    jnp.int32(where), jnp.arange(num_tokens), jnp.int32(table), 0, 0
                )
                method = "write_prefill_to_cache"
            else:
                step = module.PagedAttentionMetadata(0, 0, 0, jnp.int32(where), jnp.asarray(table))
                method = "write_generate_to_cache"
            views.append(write(view, method, jnp.asarray(key), jnp.asarray(value), step))
        theirs, mine = views
        assert mine.key_pages.dtype == theirs.key_pages.dtype
        assert_same_pages(theirs, mine, dummy=False)


def test_decode_state_is_the_same(seed, ours):
    theirs, mine = (module.PagedAttentionMetadata._init_decode_state() for module in (seed, ours))
    for name in vars(theirs):
        a, b = getattr(theirs, name), getattr(mine, name)
        assert (a.shape, a.dtype, int(a)) == (b.shape, b.dtype, int(b))


# --- what differs ---------------------------------------------------------------------------------


def views_of(seed, ours):
    return list(auto_views(*(cache.views[0] for cache in caches(seed, ours))))


def ones(num_tokens):
    return jnp.ones([num_tokens, 2, 4])


def test_page_ids_out_of_range_write_over_the_last_page_there(seed, ours):
    theirs, mine = views_of(seed, ours)
    for page in (9, 100, -1):
        step = pagedkv.PagedAttentionMetadata.for_prefill(4, jnp.int32([page]), num_tokens=4)
        a, b = (write(v, "write_prefill_to_cache", ones(4), ones(4), step) for v in (theirs, mine))
        assert (np.asarray(a.key_pages)[:, 8] == 1).all()
        assert not np.asarray(b.key_pages).any()


def test_an_idle_row_with_a_full_table_writes_over_its_last_page_there(seed, ours):
    theirs, mine = views_of(seed, ours)
    step = pagedkv.PagedAttentionMetadata.for_generate(jnp.int32([-1]), jnp.int32([[1, 2]]))
    a, b = (write(v, "write_generate_to_cache", ones(1), ones(1), step) for v in (theirs, mine))
    assert (np.asarray(a.key_pages)[:, 2, 3] == 1).all()
    assert not np.asarray(b.key_pages).any()


def test_a_position_beyond_the_table_writes_over_its_last_page_there(seed, ours):
    theirs, mine = views_of(seed, ours)
    step = pagedkv.PagedAttentionMetadata.for_generate(jnp.int32([8]), jnp.int32([[1, 2]]))
    a, b = (write(v, "write_generate_to_cache", ones(1), ones(1), step) for v in (theirs, mine))
    assert (np.asarray(a.key_pages)[:, 2, 0] == 1).all()
    assert not np.asarray(b.key_pages).any()


def test_concatenate_to_cache_is_missing_there(seed, ours):
    theirs, mine = views_of(seed, ours)
    step = pagedkv.PagedAttentionMetadata.for_prefill(4, jnp.int32([1]), num_tokens=4)
    with pytest.raises(NotImplementedError):
        theirs.concatenate_to_cache(ones(4), ones(4), step)
    key_pages, value_pages, view = mine.concatenate_to_cache(ones(4), ones(4), step)
    assert (np.asarray(key_pages)[:, 1] == 1).all()
    assert value_pages is view.value_pages


def test_writes_change_the_view_there_and_in_compat_alone(seed, ours):
    theirs, mine = views_of(seed, ours)
    step = pagedkv.PagedAttentionMetadata.for_prefill(4, jnp.int32([1]), num_tokens=4)
    assert theirs.write_prefill_to_cache(ones(4), ones(4), step) is None
    assert np.asarray(theirs.key_pages).any()
    written = mine.write_prefill_to_cache(ones(4), ones(4), step)
    assert np.asarray(written.key_pages).any()
    assert (written is mine) == (ours is easydel_0_1_3)
    assert np.asarray(mine.key_pages).any() == (ours is easydel_0_1_3)


# --- free pages -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.integers(1, 12),
    st.lists(
        st.tuples(st.just("alloc_prefill_hbm_pages"), st.integers(-3, 40))
        | st.tuples(st.just("alloc_hbm_pages"), st.integers(-2, 12))
        | st.tuples(st.just("free_hbm_pages"), st.sets(st.integers(0, 11), max_size=4)),
        max_size=40,
    ),
)
def test_manager_gives_the_same_pages(seed, num_pages, calls):
    sizes = SimpleNamespace(num_pages_per_layer=num_pages, page_size=3)
    theirs, mine = (module.PagedAttentionCacheManager(sizes) for module in (seed, pagedkv))
    assert theirs.page_size == mine.page_size
    assert theirs.current_page_index == mine.current_page_index
    held = set()
    for name, argument in calls:
        if name == "free_hbm_pages":
            pages = [0, *sorted(argument & held, reverse=True)]
            theirs.free_hbm_pages(pages)
            mine.free_hbm_pages(pages)
            held -= set(pages)
        else:
            pages = getattr(theirs, name)(argument)
            assert getattr(mine, name)(argument) == pages
            held |= set(pages)
        assert mine.num_free_pages == theirs._available_hbm_pages.qsize()


def test_manager_hands_a_page_out_twice_there(seed):
    sizes = SimpleNamespace(num_pages_per_layer=3, page_size=3)
    theirs, mine = (module.PagedAttentionCacheManager(sizes) for module in (seed, pagedkv))
    for manager in (theirs, mine):
        assert manager.alloc_hbm_pages(2) == [1, 2]
        manager.free_hbm_pages([1])
    theirs.free_hbm_pages([1, 77])
    assert theirs.alloc_hbm_pages(3) == [1, 1, 77]
    with pytest.raises(ValueError, match="page 1 is not allocated"):
        mine.free_hbm_pages([1])
    with pytest.raises(IndexError, match=r"page must be in \[1, 3\), got 77"):
        mine.free_hbm_pages([77])
    assert mine.alloc_hbm_pages(1) == [1]
