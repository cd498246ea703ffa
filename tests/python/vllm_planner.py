"""vLLM's planning of hybrid KV caches, written anew from its formulas, one loop each.

Sizes in bytes, for one device, without layouts and scales. The formulas are those of
`vllm/v1/core/kv_cache_utils.py` and `vllm/v1/kv_cache_interface.py`: the page of an attention
layer is `heads * block * (head + head_v) * itemsize`, that of a state the sum of its arrays; layers
get pages of one size by longer blocks, states by padding; groups are as long as the rarest kind (or
the most frequent, if that is less than 1.5 times as frequent); a request takes
`sum of cdiv(bytes of a layer, page)` blocks.
"""

import math
from dataclasses import dataclass

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "int8": 1}


class CannotUnify(Exception):
    """vLLM's NotImplementedError: pages of sizes that do not divide the largest."""


@dataclass(frozen=True)
class Layer:
    kind: str  # full, sliding, chunked, cross, state
    token_bytes: int = 0  # of attention
    state_bytes: int = 0
    window: int = 0  # or chunk


@dataclass(frozen=True)
class Limits:
    max_model_len: int
    max_num_batched_tokens: int
    max_encoder_tokens: int = 0


@dataclass(frozen=True)
class Answer:
    page_bytes: int  # of a block, over the layers of a group
    blocks_per_request: list[int]  # of each group, sorted
    num_blocks: int


def cdiv(a, b):
    return math.ceil(a / b)


def layer_of(spec):
    """Reads the fields that a spec was made with; computes nothing by it."""
    name = type(spec).__name__
    if name == "MambaSpec":
        dtypes = [spec.dtype] * len(spec.shapes) if isinstance(spec.dtype, str) else spec.dtype
        arrays = zip(spec.shapes, dtypes, strict=True)
        return Layer("state", state_bytes=sum(math.prod(s) * ITEMSIZE[d] for s, d in arrays))
    head_v = 0 if spec.use_mla else spec.head_size_v
    token = spec.num_kv_heads * (spec.head_size + head_v) * ITEMSIZE[spec.dtype]
    if name == "SlidingWindowSpec":
        return Layer("sliding", token, window=spec.sliding_window)
    if name == "ChunkedLocalAttentionSpec":
        return Layer("chunked", token, window=spec.attention_chunk_size)
    return Layer("cross" if name == "CrossAttentionSpec" else "full", token)


def layer_request_bytes(layer, block, page, limits):
    length, batched = limits.max_model_len, min(limits.max_num_batched_tokens, limits.max_model_len)
    if layer.kind == "full":
        return cdiv(length, block) * page
    if layer.kind == "sliding":
        return (cdiv(min(layer.window - 1 + batched, length), block) + 1) * page
    if layer.kind == "chunked":
        return cdiv(min(layer.window + batched, length), block) * page
    if layer.kind == "cross":
        return max(1, cdiv(limits.max_encoder_tokens, block)) * page
    return page  # a state


def plan(layers, block, limits, memory):
    if len({(layer.kind, layer.window) for layer in layers}) == 1:  # uniform type: no padding
        pages = [layer.token_bytes * block + layer.state_bytes for layer in layers]
        blocks = layer_request_bytes(layers[0], block, 1, limits)
        return Answer(sum(pages), [blocks], memory // sum(pages))

    attention = [layer.token_bytes for layer in layers if layer.kind != "state"]
    if attention:
        largest_state = max(layer.state_bytes for layer in layers)
        grown = block * max(1, cdiv(largest_state, block * max(attention)))
        page = grown * max(attention)
    else:
        page = max(layer.state_bytes for layer in layers)
    blocks = {}
    for layer in layers:
        if layer.kind == "state":
            blocks[layer] = block
        else:
            if page % (layer.token_bytes * block):
                raise CannotUnify
            blocks[layer] = page // layer.token_bytes
    counts = {layer: layers.count(layer) for layer in layers}
    low, high = min(counts.values()), max(counts.values())
    group_size = high if high < low * 1.5 else low
    per_request = []
    for layer, count in counts.items():
        needed = cdiv(layer_request_bytes(layer, blocks[layer], page, limits), page)
        per_request += [needed] * cdiv(count, group_size)
    return Answer(page * group_size, sorted(per_request), memory // page // group_size)
