"""paged_attention over every layout, dtype and mask, against plain loops in float64."""

import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import ops_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pagedkv import KVLayout, _ffi_cpu
from pagedkv.ops import QuantizedPages, _reference, paged_attention, register_targets, write_kv
from pagedkv.ops._quantized import scale_shape

ISAS = _ffi_cpu.attention_instruction_sets()
FLOATS = ("float32", "bfloat16", "float16")
CODES = ("int8", "int4", "float8_e4m3fn", "float8_e5m2")
GRANULARITIES = ("token", "page", "static")
TOLERANCE = {"float32": 3e-5, "bfloat16": 2e-2, "float16": 3e-3}
STORED = [(dtype, None) for dtype in FLOATS]
STORED += [(dtype, granularity) for dtype in CODES for granularity in GRANULARITIES]
# Elements under a byte cannot lie apart.
FORMS = [
    (layout, *stored)
    for layout in KVLayout
    for stored in STORED
    if not (layout is KVLayout.LATENT_TRANSPOSED and stored[0] == "int4")
]


def name_of(value):
    return getattr(value, "name", str(value))


def bits(dtype):
    return 4 if dtype == "int4" else 8 * np.dtype(dtype).itemsize


class Case:
    """A ragged batch over pools of any layout and dtype, and what they hold as plain numbers."""

    def __init__(
        self,
        layout=KVLayout.NHD,
        dtype="float32",
        granularity=None,
        *,
        requests=((1, 9), (5, 5), (0, 3), (3, 12)),
        query_dtype="float32",
        kv_heads=2,
        group=3,
        head_dim=8,
        value_dim=None,
        page_size=8,
        num_layers=2,
        num_padding=1,
        seed=0,
    ):
        rng = np.random.default_rng(seed)
        if layout.is_latent:
            group, kv_heads = kv_heads * group, 1
            value_dim = value_dim or max(1, head_dim * 3 // 4)
        if layout.is_shared and not layout.is_latent:
            value_dim = None
        self.layout, self.head_dim, self.kv_heads = layout, head_dim, kv_heads
        self.value_dim = value_dim or head_dim
        lengths = [-(-context // page_size) for _, context in requests]
        num_pages = sum(lengths) + 3
        starts = np.concatenate([[0], np.cumsum([queries for queries, _ in requests])])
        heads = kv_heads * group
        self.query = rng.standard_normal((starts[-1] + num_padding, heads, head_dim)).astype(
            np.dtype(query_dtype)
        )
        self.page_table = np.zeros((len(requests), max([1, *lengths]) + 1), np.int32)
        ids = iter(1 + rng.permutation(num_pages - 1))
        for row, length in zip(self.page_table, lengths, strict=True):
            row[:length] = [next(ids) for _ in range(length)]
        self.starts = starts.astype(np.int32)
        self.lens = np.array([context for _, context in requests], np.int32)
        self._fill(rng, dtype, granularity, num_layers, num_pages, page_size)

    def _fill(self, rng, dtype, granularity, num_layers, num_pages, page_size):
        layout = self.layout
        shapes = layout.pool_shapes(
            num_pages=num_pages,
            page_size=page_size,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            dtype_bits=bits(dtype),
            value_dim=None if layout.is_shared else self.value_dim,
        )
        # Padding is NaN where the dtype has one, and else as large as can be: never to be read.
        self.pools, self.scales = [], []
        for shape in shapes:
            full = np.nan if dtype in FLOATS or "float8" in dtype else 7
            self.pools.append(np.full((num_layers, *shape), full, np.dtype(dtype)))
            if granularity:
                scales = scale_shape(layout, shape, granularity)
                self.scales.append(rng.uniform(0.01, 0.1, (num_layers, *scales)).astype(np.float32))
        self.keys = np.zeros((num_layers, num_pages, page_size, self.kv_heads, self.head_dim))
        self.values = np.zeros((*self.keys.shape[:-1], self.value_dim))
        for stream, numbers in enumerate((self.keys, self.values)):
            for index in np.ndindex(*numbers.shape[:-1]):
                self._put(rng, stream, index, numbers[index], granularity)

    def _put(self, rng, stream, index, numbers, granularity):
        """Draws a row, and puts it into its pool and, as numbers, where the oracle looks."""
        layer, page, offset, head = index
        pool = self.pools[min(stream, len(self.pools) - 1)][layer]
        at = oracle.place(self.layout, stream, page, offset, head, pool.shape)
        if self.layout.is_latent and stream == 1:  # the start of the key
            numbers[:] = self.keys[index][: self.value_dim]
            return
        row = rng.standard_normal(len(numbers))
        row = (row * 20 if granularity else row).clip(-100, 100)
        if pool.dtype == ml_dtypes.int4:
            row = row.clip(-7, 7)
        row = (np.round(row) if "int" in str(pool.dtype) else row).astype(pool.dtype)
        pool[at][: len(row)] = row
        factor = 1.0
        if granularity:
            factor = float(self._scale(stream, layer, at, granularity))
        numbers[:] = row.astype(np.float64) * factor

    def _scale(self, stream, layer, at, granularity):
        kept = {"token": ("kv_heads", "pages", "page_size"), "page": ("kv_heads", "pages")}
        names = kept.get(granularity, ("kv_heads",))
        axes = self.layout.axes[: len(at)]
        index = [i for i, axis in zip(at, axes, strict=True) if axis in names]
        if self.layout is KVLayout.SIDE_BY_SIDE:
            index.append(stream)
        return self.scales[min(stream, len(self.scales) - 1)][(layer, *index)]

    @property
    def batch(self):
        return self.page_table, self.starts, self.lens

    def expected(self, **kwargs):
        return oracle.paged_attention(self.query, self.keys, self.values, *self.batch, **kwargs)

    def operands(self, layer=None):
        """As the op takes them; of one layer without a layer axis."""
        pools = [*self.pools] if layer is None else [pool[layer] for pool in self.pools]
        if self.scales:
            scales = [s if layer is None else s[layer] for s in self.scales]
            pools = [QuantizedPages(*pair) for pair in zip(pools, scales, strict=True)]
        return self.query, *[*pools, None][:2], *self.batch

    def options(self):
        options = {"layout": self.layout}
        if self.layout.is_latent:
            options["value_dim"] = self.value_dim
        if self.layout.pads:
            options["num_kv_heads"] = self.kv_heads
        return options

    def attend(self, layer=1, **kwargs):
        return paged_attention(*self.operands(), layer=layer, **self.options(), **kwargs)

    def arrays(self, *, layer=1, sinks=None, **mask):
        """The operands of the handler and of the reference."""
        sinks = np.zeros([0], np.float32) if sinks is None else sinks
        counts = {"window": 2**31 - 1, "chunk": 2**31 - 1, "sink_tokens": 0} | mask
        scalars = [np.int32(value) for value in (layer, *counts.values())]
        return self.query, *self.batch, *scalars, sinks, *self.pools, *self.scales

    def attributes(self, soft_cap=None):
        return {
            "layered": True,
            "group_size": self.query.shape[1] // self.kv_heads,
            "scale": self.head_dim**-0.5,
            "soft_cap": soft_cap or 0.0,
        }

    def call_handler(self, isa, *, soft_cap=None, **kwargs):
        register_targets()
        output = jax.ShapeDtypeStruct((*self.query.shape[:2], self.value_dim), self.query.dtype)
        count = jax.ShapeDtypeStruct((), np.int32)
        attributes = self.attributes(soft_cap)
        function = jax.ffi.ffi_call("pagedkv.paged_attention.v2", (output, count))
        attributes |= {name: np.float32(attributes[name]) for name in ("scale", "soft_cap")}
        attributes |= {"layout": self.layout.name, "mode": "drop", "instruction_set": isa}
        return function(*map(jnp.asarray, self.arrays(**kwargs)), **attributes)

    def call_reference(self, *, soft_cap=None, **kwargs):
        return reference(
            *map(jnp.asarray, self.arrays(**kwargs)),
            layout=self.layout,
            value_dim=self.value_dim,
            **self.attributes(soft_cap),
        )


reference = jax.jit(
    _reference.paged_attention,
    static_argnames=("layout", "layered", "group_size", "value_dim", "scale", "soft_cap"),
)


def assert_attends(actual, expected, tolerance=None):
    output, num_dropped = actual
    assert output.dtype == expected[0].dtype
    tolerance = tolerance or TOLERANCE[str(output.dtype)]
    np.testing.assert_allclose(
        np.asarray(output, np.float64), np.asarray(expected[0], np.float64), tolerance, tolerance
    )
    assert int(num_dropped) == expected[1]


# Layouts and dtypes


@pytest.mark.parametrize(("layout", "dtype", "granularity"), FORMS, ids=name_of)
def test_every_layout_and_dtype_equals_the_loop(layout, dtype, granularity):
    seed = zlib.crc32(f"{layout.name} {dtype} {granularity}".encode())
    case = Case(layout, dtype, granularity, seed=seed)
    expected = case.expected(layer=1)
    assert_attends(case.attend(), expected)
    for isa in ISAS[1:]:
        assert_attends(case.call_handler(isa), expected)


@pytest.mark.parametrize(
    ("layout", "dtype", "granularity"),
    [form for form in FORMS if form[1] == "bfloat16" or form[1:] == ("int8", "page")]
    + [form for form in FORMS if form[0] is KVLayout.NHD and form[1] in CODES],
    ids=name_of,
)
def test_the_reference_equals_the_loop(layout, dtype, granularity):
    case = Case(layout, dtype, granularity)
    assert_attends(case.call_reference(), case.expected(layer=1))


@pytest.mark.parametrize("layout", KVLayout, ids=name_of)
@pytest.mark.parametrize("query_dtype", FLOATS)
def test_the_query_has_a_dtype_of_its_own(layout, query_dtype):
    """And pools of one layer need no layer axis."""
    for stored in (("bfloat16", None), ("float32", None), ("int8", "page")):
        case = Case(layout, *stored, query_dtype=query_dtype)
        actual = paged_attention(*case.operands(layer=1), **case.options())
        assert_attends(actual, case.expected(layer=1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_float_is_read_as_it_is(isa, dtype):
    """All bit patterns of 16 bits, the subnormal ones and infinities too, as values."""
    if dtype == "float32":
        numbers = np.random.default_rng(0).integers(0, 2**32, 2**16, np.uint32).view(np.float32)
    else:
        numbers = np.arange(2**16, dtype=np.uint16).view(np.dtype(dtype))
    case = Case(dtype=dtype, requests=((1, 64),), num_layers=1, head_dim=1024, kv_heads=1,
                group=1, page_size=64, num_padding=0)  # fmt: skip
    page = case.page_table[0, 0]
    case.query[:] = 0
    case.pools[0][:] = 0
    for token in range(64):  # seen alone: a window of 1
        case.pools[1][0, page, token, 0] = numbers[token * 1024 : token * 1024 + 1024]
    case.query = np.repeat(case.query, 64, axis=0)
    case.starts = np.int32([0, 64])
    output = np.asarray(case.call_handler(isa, layer=0, window=1)[0]).ravel()
    wanted = numbers.astype(np.float32)
    wanted = np.where(np.abs(wanted) < np.finfo(np.float32).tiny, 0, wanted)  # XLA: none in float32
    np.testing.assert_array_equal(output, wanted)


def test_what_write_kv_wrote_is_attended_to():
    """From end to end: quantised on the way in and read as it lies, against plain numbers."""
    rng = np.random.default_rng(0)
    shape = KVLayout.FUSED_PACKED.pool_shapes(
        num_pages=6, page_size=8, num_kv_heads=2, head_dim=64, dtype_bits=8
    )[0]
    rows = rng.standard_normal((2, 20, 2, 64)).astype(np.float32)
    table, starts, lens = np.int32([[4, 1, 2]]), np.int32([0, 20]), np.int32([20])
    slots = np.int32([table[0, t // 8] * 8 + t % 8 for t in range(20)])
    pool = QuantizedPages.zeros(shape, "int8", layout="FUSED_PACKED")
    pool = write_kv(pool, None, *rows, slots, layout="FUSED_PACKED").key_pages
    query = rng.standard_normal((20, 4, 64)).astype(np.float32)
    actual = paged_attention(query, pool, None, table, starts, lens, layout="FUSED_PACKED")
    keys, values = (np.zeros((1, 1, 20, 2, 64)) for _ in range(2))
    keys[0, 0], values[0, 0] = rows
    expected = oracle.paged_attention(query, keys, values, np.int32([[0]]), starts, lens)
    assert_attends(actual, expected, tolerance=5e-2)


# MLA


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", [layout for layout in KVLayout if layout.is_latent], ids=name_of)
@pytest.mark.parametrize(("dtype", "granularity"), [("bfloat16", None), ("float8_e4m3fn", "token")])
def test_latent_rows_serve_many_heads(layout, dtype, granularity, isa):
    case = Case(layout, dtype, granularity, requests=((1, 40), (3, 11)), kv_heads=16, group=1,
                head_dim=576, value_dim=512, page_size=16)  # fmt: skip
    expected = case.expected(layer=1)
    assert_attends(case.call_handler(isa), expected)
    assert_attends(case.call_reference(), expected)


# Masks and scores

MASKS = {
    "window": {"window": 7},
    "chunk": {"chunk": 8},
    "chunk of one page": {"chunk": 4},
    "window and chunk": {"window": 5, "chunk": 16},
    "window and sink tokens": {"window": 6, "sink_tokens": 3},
    "chunk and sink tokens": {"chunk": 10, "sink_tokens": 33},
    "more sink tokens than context": {"window": 1, "sink_tokens": 500},
    "sink tokens over a tile": {"window": 2, "sink_tokens": 32},
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", MASKS)
def test_masks_equal_the_loop(name, isa):
    mask = MASKS[name]
    case = Case(requests=((1, 70), (40, 75), (0, 3), (1, 4), (7, 33)), page_size=4)
    expected = case.expected(layer=1, **mask)
    forget(case, **mask)
    assert_attends(case.call_handler(isa, **mask), expected)
    assert_attends(case.call_reference(**mask), expected)


def forget(case, **mask):
    """Page 0, full of NaN, where no query of a request sees a token; and one id out of range."""
    page_size = case.pools[0].shape[2]
    for row, context, first, last in zip(
        case.page_table, case.lens, case.starts[:-1], case.starts[1:], strict=True
    ):
        for i in range(-(-context // page_size)):
            others = range(i * page_size, min(context, (i + 1) * page_size))
            positions = range(context - (last - first), context)
            if not any(oracle.sees(p, other, **mask) for p in positions for other in others):
                row[i] = 0 if i % 2 else 10**6
    for pool in case.pools:
        pool[:, 0] = np.nan


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("soft_cap", [0.5, 5.0, 50.0])
def test_a_cap_equals_the_loop(soft_cap, isa):
    case = Case(requests=((1, 70), (9, 40)))
    case.query *= 8
    expected = case.expected(layer=1, soft_cap=soft_cap)
    assert_attends(case.call_handler(isa, soft_cap=soft_cap), expected)
    assert_attends(case.call_reference(soft_cap=soft_cap), expected)
    assert_attends(case.attend(soft_cap=soft_cap), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_sinks_equal_the_loop(isa):
    """Small and large ones, and none (-inf); over several parts too."""
    case = Case(requests=((1, 1100), (9, 40)), page_size=64)
    sinks = np.float32([-3, 0, 2, 9, 60, -np.inf])
    expected = case.expected(layer=1, sinks=sinks)
    assert_attends(case.call_handler(isa, sinks=sinks), expected)
    assert_attends(case.call_reference(sinks=sinks), expected)
    assert_attends(case.attend(sinks=sinks), expected)


def test_a_sink_gives_nothing_to_a_row_that_sees_nothing():
    case = Case(requests=((1, 9),))
    case.page_table[:] = -1
    for actual in (case.attend(sinks=np.ones(6, np.float32)),
                   case.call_reference(sinks=np.ones(6, np.float32))):  # fmt: skip
        assert not np.asarray(actual[0]).any()
        assert int(actual[1]) == 2


def test_layers_of_one_scan_may_differ_in_their_masks():
    """Llama 4 and gpt-oss: counts and sinks are arrays."""
    case = Case(requests=((1, 30), (9, 20)))
    rng = np.random.default_rng(0)
    masks = [{"window": 5, "sink_tokens": 2}, {"chunk": 8}]
    sinks = rng.standard_normal((2, 6)).astype(np.float32)
    counts = jnp.int32([[5, 2**31 - 1, 2], [2**31 - 1, 8, 0]])

    @jax.jit
    def attend(*operands):
        def body(_, layer):
            window, chunk, sink_tokens = counts[layer]
            return None, paged_attention(
                *operands,
                layer=layer,
                sliding_window=window,
                attention_chunk_size=chunk,
                num_sink_tokens=sink_tokens,
                sinks=jnp.asarray(sinks)[layer],
            )

        return jax.lax.scan(body, None, jnp.arange(2, dtype=jnp.int32))[1]

    both = attend(*case.operands())
    for layer, mask in enumerate(masks):
        expected = case.expected(layer=layer, sinks=sinks[layer], **mask)
        assert_attends((both.output[layer], both.num_dropped[layer]), expected)


masks = st.fixed_dictionaries(
    {},
    optional={
        "window": st.integers(1, 80),
        "chunk": st.integers(1, 80),
        "sink_tokens": st.integers(0, 80),
        "soft_cap": st.sampled_from([1.0, 30.0]),
    },
)
queries_and_context = st.tuples(st.integers(0, 12), st.integers(0, 60)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


# Each shape is compiled anew, so examples are few.
@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    requests=st.lists(queries_and_context, min_size=1, max_size=4),
    query_dtype=st.sampled_from(FLOATS),
    kv_heads=st.integers(1, 4),
    group=st.integers(1, 7),
    head_dim=st.sampled_from([8, 24, 64, 72, 80, 128, 256]),
    page_size=st.sampled_from([4, 8, 16, 64]),
    mask=masks,
    has_sinks=st.booleans(),
    absent=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=3),
    isa=st.sampled_from(ISAS),
    seed=st.integers(0, 99),
)
def test_any_batch_of_any_form_equals_the_loop(
    form, requests, mask, has_sinks, absent, isa, page_size, **sizes
):
    if form[0] is KVLayout.LATENT_PACKED:
        page_size = max(page_size, 32 // bits(form[1]))  # whole words
    case = Case(*form, requests=tuple(requests), page_size=page_size, **sizes)
    for request, i in absent:
        if request < len(requests) and i < case.page_table.shape[1]:
            case.page_table[request, i] = -1
    if has_sinks:
        heads = case.query.shape[1]
        mask = mask | {"sinks": np.linspace(-4, 4, heads).astype(np.float32)}
    assert_attends(case.call_handler(isa, **mask), case.expected(layer=1, **mask))


@settings(max_examples=5, deadline=None)
@given(form=st.sampled_from(FORMS), group=st.integers(1, 3), mask=masks)
def test_the_reference_of_any_form_equals_the_loop(form, group, mask):
    case = Case(*form, group=group)
    assert_attends(case.call_reference(**mask), case.expected(layer=1, **mask))


# Parts


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "mask", [{}, {"window": 1500}, {"chunk": 1024}, {"window": 9, "sink_tokens": 1030}], ids=str
)
def test_long_contexts_equal_the_loop(isa, mask):
    case = Case(
        dtype="bfloat16", requests=((1, 2600), (2, 1024), (1, 1025)), page_size=64, head_dim=16
    )
    assert_attends(case.call_handler(isa, **mask), case.expected(layer=1, **mask))


@pytest.mark.parametrize("form", [("NHD", "bfloat16"), ("LATENT", "float32"), ("HND", "int8")])
def test_a_token_of_a_long_context_has_the_same_bits_in_any_batch(form):
    """Cut over threads or not, decoded alone or as one of a chunk, beside others or not."""
    granularity = "token" if form[1] == "int8" else None
    case = Case(KVLayout[form[0]], form[1], granularity, requests=((40, 3000), (1, 2100), (2, 50)),
                page_size=32, head_dim=64, kv_heads=4, group=4, num_padding=0)  # fmt: skip
    mask = {"num_sink_tokens": 5, "sliding_window": 2500}
    options = {"layer": 1, **case.options()}
    query, *pools, table, starts, lens = case.operands()
    for extra in ({}, mask):
        whole = np.asarray(paged_attention(*case.operands(), **options, **extra).output)
        for request, token in ((0, 0), (0, 17), (0, 39), (1, 40), (2, 42)):
            last = lens[request] - (starts[request + 1] - 1 - token)
            one = paged_attention(
                *(query[token : token + 1], *pools, table[request : request + 1]),
                *(np.int32([0, 1]), np.int32([last])),
                **options,
                **extra,
            )
            np.testing.assert_array_equal(one.output[0], whole[token])


# Transforms


@pytest.mark.parametrize("mapped_pools", [True, False])
def test_vmap_equals_a_loop_over_the_batch(mapped_pools):
    cases = [Case(KVLayout.HND, "int8", "page", seed=seed) for seed in range(3)]
    operands = [case.operands() for case in cases]
    if not mapped_pools:  # one pool for all
        operands = [(o[0], *operands[0][1:3], *o[3:]) for o in operands]
        for case in cases:
            case.keys, case.values = cases[0].keys, cases[0].values
    stacked = [jax.tree.map(lambda *x: np.stack(x), *each) for each in zip(*operands, strict=True)]
    in_axes = [0] * 6
    if not mapped_pools:
        stacked[1:3], in_axes[1:3] = operands[0][1:3], [None, None]
    windows = jnp.int32([3, 100, 5])

    def attend(window, *arrays):
        return paged_attention(*arrays, layer=1, layout="HND", sliding_window=window)

    actual = jax.jit(jax.vmap(attend, in_axes=(0, *in_axes)))(windows, *stacked)
    for i, case in enumerate(cases):
        expected = case.expected(layer=1, window=int(windows[i]))
        assert_attends((actual.output[i], actual.num_dropped[i]), expected)


def test_vmap_does_not_copy_a_pool_that_is_not_mapped():
    case = Case(requests=((1, 30),), page_size=16, num_padding=0, head_dim=128)
    query, keys, values, table, starts, lens = map(jnp.asarray, case.operands())
    keys, values = (jnp.tile(pool, (1, 64, 1, 1, 1)) for pool in (keys, values))

    def attend(query, lens):
        return paged_attention(query, keys, values, table, starts, lens, layer=1).output

    batch = jnp.stack([query] * 4), jnp.stack([lens - i for i in range(4)])
    compiled = jax.jit(jax.vmap(attend)).lower(*batch).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < keys.nbytes
    expected = np.stack([attend(*one) for one in zip(*batch, strict=True)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(attend))(*batch), expected)


# Refusals

POOL = np.zeros([2, 4, 2, 2, 8], np.float32)
LATENT = np.zeros([2, 4, 2, 8], np.float32)
PACKED = np.zeros([2, 4, 2, 2, 2, 128], np.float32)  # room for 2 heads


def call(query=(3, 4, 8), pools=(POOL, POOL), **kwargs):
    table, starts, lens = np.zeros([1, 2], np.int32), np.int32([0, 3]), np.int32([3])
    query = np.zeros(query, np.float32) if isinstance(query, tuple) else query
    return paged_attention(query, *pools, table, starts, lens, **{"layer": 0, **kwargs})


CODED = QuantizedPages(POOL.astype(np.int8), np.ones([2, 4, 2, 2], np.float32))
BAD_CALLS = {
    "layout": ({"layout": "NDH"}, ValueError, "layout must be a KVLayout or its name"),
    "values of a shared pool": ({"layout": "FUSED"}, ValueError, "value_pages must be None"),
    "dtype of the pool": (
        {"pools": (POOL.astype(np.int8),) * 2},
        TypeError,
        "key_pages must be one of float32, bfloat16, float16 or QuantizedPages, got int8",
    ),
    "one quantised pool": (
        {"pools": (CODED, POOL)},
        TypeError,
        "key_pages and value_pages must both be QuantizedPages, or neither",
    ),
    "scales": (
        {"pools": (CODED._replace(scales=CODED.scales[0]), CODED)},
        ValueError,
        "key_pages.scales must have one of the shapes",
    ),
    "dtype of the query": (
        {"query": np.zeros([3, 4, 8], np.int8)},
        TypeError,
        "query must be float32, bfloat16 or float16, got int8",
    ),
    "elements of the query": (
        {"query": (3, 4, 7)},
        ValueError,
        r"query must have shape \[tokens, heads, head_dim\] with the 8 elements of a key",
    ),
    "more elements than there is room for": (
        {"query": (3, 4, 129), "pools": (PACKED, None), "layout": "FUSED_PACKED"},
        ValueError,
        r"query must have shape \[tokens, heads, head_dim\] with at most the 128 elements",
    ),
    "heads": ({"query": (3, 3, 8)}, ValueError, "query must have a multiple of the 2 kv heads"),
    "kv heads of a pool that does not pad": (
        {"num_kv_heads": 1},
        ValueError,
        "num_kv_heads must be 2 in layout NHD, got 1",
    ),
    "kv heads": (
        {"num_kv_heads": 3, "pools": (PACKED, None), "layout": "FUSED_PACKED"},
        ValueError,
        "num_kv_heads must be between 1 and 2 in layout FUSED_PACKED, got 3",
    ),
    "type of the kv heads": ({"num_kv_heads": 1.0}, TypeError, "num_kv_heads must be an int"),
    "value_dim": ({"value_dim": 4}, ValueError, "value_dim must be 8 in layout NHD, got 4"),
    "value_dim of a latent pool": (
        {"value_dim": 9, "pools": (LATENT, None), "layout": "LATENT"},
        ValueError,
        "value_dim must be between 1 and 8 in layout LATENT, got 9",
    ),
    "type of value_dim": ({"value_dim": True}, TypeError, "value_dim must be an int, got bool"),
    "soft_cap": ({"soft_cap": 0}, ValueError, "soft_cap must be above 0 and finite, got 0"),
    "nan soft_cap": ({"soft_cap": float("nan")}, ValueError, "soft_cap must be above 0"),
    "infinite soft_cap": ({"soft_cap": float("inf")}, ValueError, "soft_cap must be above 0"),
    "type of soft_cap": ({"soft_cap": "1"}, TypeError, "soft_cap must be a number, got str"),
    "chunk": (
        {"attention_chunk_size": 0},
        ValueError,
        "attention_chunk_size must be at least 1, got 0",
    ),
    "sink tokens": ({"num_sink_tokens": -1}, ValueError, "num_sink_tokens must be at least 0"),
    "type of the sink tokens": (
        {"num_sink_tokens": np.int64(3)},
        TypeError,
        "num_sink_tokens must be int32, got int64",
    ),
    "dtype of the sinks": ({"sinks": np.zeros(4)}, TypeError, "sinks must be float32, got float64"),
    "shape of the sinks": (
        {"sinks": np.zeros(2, np.float32)},
        ValueError,
        r"sinks must have shape \[4\], one for each head of query, got \[2\]",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_refuses_at_trace_time(name):
    kwargs, error, text = BAD_CALLS[name]
    with pytest.raises(error, match=r"\[paged_attention\] " + text):
        call(**kwargs)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        ({"attention_chunk_size": jnp.int32(0)}, "attention_chunk_size 0 must be at least 1"),
        ({"num_sink_tokens": jnp.int32(-2)}, "num_sink_tokens -2 must not be negative"),
    ],
    ids=str,
)
def test_a_mask_that_cannot_be_drops_every_request(mask, text):
    output, num_dropped = call(**mask)
    assert not output.any()
    assert int(num_dropped) == 1
    errors = (jax.errors.JaxRuntimeError, ValueError)
    with pytest.raises(errors, match=r"\[paged_attention\] " + text):
        jax.block_until_ready(call(**mask, mode="raise"))


@pytest.mark.parametrize("sink_tokens", [0, 3])
def test_mode_raise_asks_for_the_pages_that_are_read_alone(sink_tokens):
    case = Case(requests=((1, 40),), page_size=4)
    case.page_table[0, 0] = case.page_table[0, 3] = 99  # tokens 0 to 3, and 12 to 15
    mask = {"sliding_window": 5, "num_sink_tokens": sink_tokens, "mode": "raise"}
    if sink_tokens == 0:
        assert int(jax.block_until_ready(case.attend(**mask)).num_dropped) == 0
        return
    # JAX raises the one at the first call of a program, and the other at later ones.
    errors = (jax.errors.JaxRuntimeError, ValueError)
    with pytest.raises(errors, match=r"page 99 at position \[0, 0\]"):
        jax.block_until_ready(case.attend(**mask))
