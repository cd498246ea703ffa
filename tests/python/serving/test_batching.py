import numpy as np
import pytest
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request
from pagedkv.serving.batching import bucket, pack


@pytest.mark.parametrize(
    ("size", "expected"), [(1, 2), (2, 2), (3, 8), (8, 8), (9, 32), (33, 128), (500, 512)]
)
def test_bucket_is_the_least_quarter_that_holds_the_size(size: int, expected: int) -> None:
    assert bucket(size, 512) == expected


def test_a_long_piece_takes_several_rows() -> None:
    spec = FullAttentionSpec(page_size=2, num_kv_heads=1, head_size=8, dtype="float32")
    manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
    requests = [Request("a", [10, 11, 12, 13, 14]), Request("b", [20, 21, 22])]
    manager.allocate(requests[0], 5)
    manager.allocate(requests[1], 1)
    manager.commit(requests[1], 1)
    manager.allocate(requests[1], 2)
    counts = np.array([5, 2], np.int32)

    inputs, last_rows = pack(
        requests,
        counts,
        slots=manager.slot_mapping(requests, counts),
        page_table=manager.page_table(requests),
        row_tokens=4,
        num_rows=4,
        max_pages=32,
    )

    # Request a holds pages 1, 2, 3, and b pages 4, 5.
    assert inputs.tokens.tolist() == [[10, 11, 12, 13], [14, 0, 0, 0], [21, 22, 0, 0], [0] * 4]
    assert inputs.positions.tolist() == [[0, 1, 2, 3], [4, 0, 0, 0], [1, 2, 0, 0], [0] * 4]
    assert inputs.slot_mapping.tolist() == [
        [2, 3, 4, 5],
        [6, -1, -1, -1],
        [9, 10, -1, -1],
        [-1, -1, -1, -1],
    ]
    assert inputs.page_table[:, :3].tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 0], [0, 0, 0]]
    assert inputs.page_table.shape == (4, 8)
    assert inputs.last.tolist() == [3, 0, 1, 0]
    assert last_rows.tolist() == [1, 2]
    assert all(array.dtype == np.int32 for array in inputs)
