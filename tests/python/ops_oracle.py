"""The ops as loops over NumPy arrays, written apart from every implementation."""

import numpy as np

DTYPES = [
    "float32",
    "bfloat16",
    "float16",
    "int8",
    "uint8",
    "float8_e4m3fn",
    "float8_e5m2",
    "int4",
]


def write_kv(key_pages, value_pages, key, value, slot_mapping, layer=None):
    pools = [key_pages.copy(), value_pages.copy()]
    layers = [pool[None] if layer is None else pool for pool in pools]
    layer = 0 if layer is None else int(layer)
    num_layers, num_pages, page_size = layers[0].shape[:3]
    num_dropped = 0
    for i, slot in enumerate(map(int, slot_mapping)):
        if 0 <= slot < num_pages * page_size and 0 <= layer < num_layers:
            layers[0][layer][slot // page_size][slot % page_size] = key[i]
            layers[1][layer][slot // page_size][slot % page_size] = value[i]
        elif slot != -1:
            num_dropped += 1
    return *pools, num_dropped


def place(layout, stream, page, offset, head, shape):
    """Where the elements of one head of one token are in a layer's pool."""
    match layout.name:
        case "NHD":
            return (page, offset, head)
        case "HND":
            return (page, head, offset)
        case "HEADS_FIRST":
            return (head, page, offset)
        case "FUSED":
            return (page, offset, 2 * head + stream)
        case "FUSED_PACKED":
            pack = shape[3]
            return (page, offset, (2 * head + stream) // pack, (2 * head + stream) % pack)
        case "SIDE_BY_SIDE":
            pack, half = shape[3], shape[4] // 2
            part = slice(stream * half, stream * half + half)
            return (page, offset, head // pack, head % pack, part)
        case "LATENT":
            return (page, offset)
        case "LATENT_PACKED":
            pack = shape[2]
            return (page, offset // pack, offset % pack)
        case "LATENT_TRANSPOSED":
            return (page, slice(None), offset)


def write_layout(layout, pools, rows, slots, layer):
    """Into a layer of stacked pools; what a token has beyond its rows becomes zero."""
    pools = [pool.copy() for pool in pools]
    sizes = layout.sizes(pools[0].shape[1:])
    num_dropped = 0
    for i, slot in enumerate(map(int, slots)):
        if not (0 <= slot < sizes["pages"] * sizes["page_size"] and 0 <= layer < len(pools[0])):
            num_dropped += slot != -1
            continue
        page, offset = divmod(slot, sizes["page_size"])
        if layout.name in ("FUSED_PACKED", "SIDE_BY_SIDE"):
            pools[0][layer][page, offset] = 0
        if layout.name == "LATENT_PACKED":
            pools[0][layer][place(layout, 0, page, offset, 0, pools[0].shape[1:])] = 0
        for stream, new in enumerate(rows):
            pool = pools[min(stream, len(pools) - 1)][layer]
            for head in range(1 if new.ndim == 2 else new.shape[1]):
                row = new[i] if new.ndim == 2 else new[i, head]
                pool[place(layout, stream, page, offset, head, pool.shape)][: len(row)] = row
    return pools, num_dropped


def gather_pages(pages, page_ids, layer=None):
    layers = pages[None] if layer is None else pages
    layer = 0 if layer is None else int(layer)
    rows = np.zeros((page_ids.size, *layers.shape[2:]), pages.dtype)
    num_dropped = 0
    for i, page in enumerate(map(int, page_ids.ravel())):
        if 0 <= page < layers.shape[1] and 0 <= layer < layers.shape[0]:
            rows[i] = layers[layer][page]
        elif page != -1:
            num_dropped += 1
    return rows.reshape(*page_ids.shape, *layers.shape[2:]), num_dropped


def sees(position, other, window=None, chunk=None, sink_tokens=0):
    """Whether the token at `position` of a request sees the one at `other`."""
    if other > position:
        return False
    in_window = window is None or position - other < window
    in_chunk = chunk is None or position // chunk == other // chunk
    return other < sink_tokens or (in_window and in_chunk)


def paged_attention(
    query,
    key_pages,
    value_pages,
    page_table,
    query_starts,
    context_lens,
    layer=0,
    scale=None,
    soft_cap=None,
    sinks=None,
    window=None,
    chunk=None,
    sink_tokens=0,
):
    """In float64, one query head of one token after the other. Pools are NHD with a layer axis."""
    num_layers, num_pages, page_size, kv_heads, head_dim = key_pages.shape
    num_tokens, heads, _ = query.shape
    layer_exists = 0 <= layer < num_layers
    scale = head_dim**-0.5 if scale is None else scale
    output = np.zeros((num_tokens, heads, value_pages.shape[-1]))
    num_dropped = 0
    has_mask = (window is None or window >= 1) and (chunk is None or chunk >= 1)
    has_mask = has_mask and sink_tokens >= 0
    starts, width = list(map(int, query_starts)), page_table.shape[1]
    for r, context in enumerate(map(int, context_lens)):
        start, end = starts[r : r + 2]
        is_in_order = start >= max(starts[: r + 1]) and 0 <= start <= end <= num_tokens
        if not has_mask or not is_in_order or not end - start <= context <= width * page_size:
            num_dropped += 1
            continue
        if start == end:
            continue
        seen_by = {
            token: [
                other
                for other in range(context)
                if sees(context - end + token, other, window, chunk, sink_tokens)
            ]
            for token in range(start, end)
        }
        keys, values = {}, {}
        for i in sorted({other // page_size for seen in seen_by.values() for other in seen}):
            page = int(page_table[r, i])
            if not (layer_exists and 0 <= page < num_pages):
                num_dropped += 1
                continue
            for offset in range(page_size):
                keys[i * page_size + offset] = key_pages[layer, page, offset].astype(np.float64)
                values[i * page_size + offset] = value_pages[layer, page, offset].astype(np.float64)
        for token, seen in seen_by.items():
            seen = [other for other in seen if other in keys]
            for head in range(heads if seen else 0):
                kv_head = head // (heads // kv_heads)
                row = query[token, head].astype(np.float64) * scale
                scores = np.array([row @ keys[other][kv_head] for other in seen])
                if soft_cap is not None:
                    scores = soft_cap * np.tanh(scores / soft_cap)
                sink = [] if sinks is None else [float(sinks[head])]
                weights = np.exp(scores - max([scores.max(), *sink]))
                total = weights.sum()
                if sink:
                    total += np.exp(sink[0] - max([scores.max(), *sink]))
                rows = np.array([values[other][kv_head] for other in seen])
                output[token, head] = weights / total @ rows
    return output.astype(query.dtype), num_dropped


def random_array(rng, shape, dtype):
    """Small whole numbers, which every dtype holds."""
    return rng.integers(0, 8, shape).astype(np.dtype(dtype))


def assert_same(actual, expected):
    actual = np.asarray(actual)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual.astype(np.float32), expected.astype(np.float32))
