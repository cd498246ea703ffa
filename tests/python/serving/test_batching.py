import numpy as np
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, Request
from pagedkv.serving.batching import lay_out


def test_chunks_and_decodes_lie_back_to_back() -> None:
    spec = FullAttentionSpec(page_size=2, num_kv_heads=1, head_size=8, dtype="float32")
    manager = CacheManager(16, [CacheGroupSpec(spec)], max_model_len=64)
    requests = [Request("a", [10, 11, 12, 13, 14]), Request("b", [20, 21, 22])]
    manager.allocate(requests[0], 5)
    manager.allocate(requests[1], 1)
    manager.commit(requests[1], 1)
    manager.allocate(requests[1], 1)
    handles = manager.add_requests(requests)
    counts = np.array([5, 1], np.int32)

    inputs = lay_out(
        manager.next_tokens(handles, counts),
        np.array([0, 1], np.int32),
        counts,
        slots=[manager.slot_mapping(handles, counts)],
        page_tables=[manager.page_table(handles, 4)],
        num_tokens=8,
        num_requests=4,
    )

    # Request a holds pages 1, 2, 3, and b page 4.
    assert inputs.tokens.tolist() == [10, 11, 12, 13, 14, 21, 0, 0]
    assert inputs.positions.tolist() == [0, 1, 2, 3, 4, 1, 0, 0]
    assert inputs.slot_mapping.tolist() == [[2, 3, 4, 5, 6, 9, -1, -1]]
    assert inputs.page_table.tolist() == [[[1, 2, 3, 0], [4, 0, 0, 0], [0] * 4, [0] * 4]]
    assert inputs.query_starts.tolist() == [0, 5, 6, 6, 6]
    assert inputs.context_lens.tolist() == [5, 2, 0, 0]
    assert all(array.dtype == np.int32 for array in inputs)
