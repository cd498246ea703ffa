"""`fork`: requests that go on from others, with copies of what both would write to."""

import jax.numpy as jnp
import numpy as np
import pytest
from pagedkv import (
    CacheGroupSpec,
    CacheManager,
    FullAttentionSpec,
    MambaSpec,
    Request,
    SlidingWindowSpec,
)
from pagedkv.ops import gather_pages, write_kv

PAGE_SIZE = 4


def full_spec():
    return CacheGroupSpec(FullAttentionSpec(PAGE_SIZE, 1, 8, "float32"))


def make_manager(num_pages=32, groups=None, **options):
    return CacheManager(num_pages, groups or [full_spec()], max_model_len=64, **options)


def computed(manager, tokens, request_id="parent"):
    request = Request(request_id, tokens)
    assert manager.allocate(request, request.num_tokens)
    manager.commit(request, request.num_tokens)
    return request


def test_gives_the_pages_to_copy_of_each_group():
    groups = [
        full_spec(),
        CacheGroupSpec(SlidingWindowSpec(PAGE_SIZE, 1, 8, "float32", sliding_window=3)),
        CacheGroupSpec(MambaSpec(PAGE_SIZE, [(2, 2)], "float32")),
    ]
    manager = make_manager(groups=groups)
    parent = computed(manager, range(8))
    child = parent.copy("child")
    full, window, state = manager.fork(parent, child)
    assert full.shape == window.shape == (0, 2)
    assert state.tolist() == [[manager.page_ids(parent, 2)[0], manager.page_ids(child, 2)[0]]]
    assert full.dtype == state.dtype == np.int32
    manager.check_invariants()


def test_a_child_that_needs_no_page_hinders_no_reset():
    # Of a window of one, the next token after a full page sees nothing that was cached.
    window = CacheGroupSpec(SlidingWindowSpec(2, 1, 8, "float32", sliding_window=1))
    manager = make_manager(groups=[window])
    parent = Request("parent", range(3))
    assert manager.match(parent) == 2
    assert manager.allocate(parent, 1, num_cached_tokens=2)
    child = parent.copy("child")
    assert [pairs.shape for pairs in manager.fork(parent, child)] == [(0, 2)]
    assert not manager.reset_prefix_cache()
    manager.free(parent)
    assert manager.page_ids(child, 0) == [0]
    assert manager.reset_prefix_cache()
    manager.check_invariants()


def test_returns_none_if_too_few_pages_are_free():
    manager = make_manager(num_pages=4)
    parent = computed(manager, range(10))
    child = parent.copy("child")
    assert manager.fork(parent, child) is None
    assert not child.is_allocated
    manager.check_invariants()


def test_the_manager_keeps_a_forked_child_alive():
    manager = make_manager()
    parent = computed(manager, range(10))
    manager.fork(parent, parent.copy("child"))
    assert manager.num_requests == 2
    manager.check_invariants()


def test_a_copy_is_no_part_of_its_original():
    request = Request("a", [1, 2], cache_salt="salt", lora=("name", "path"), num_encoder_tokens=3)
    copy = request.copy("b")
    request.append(9)
    assert copy.request_id == "b"
    assert copy.tokens.tolist() == [1, 2]
    assert (copy.cache_salt, copy.lora, copy.num_encoder_tokens) == ("salt", ("name", "path"), 3)


def test_children_of_a_step():
    manager = make_manager(num_pages=6)
    parent = computed(manager, range(6))
    (handle,) = manager.add_requests([parent])
    children = [parent.copy(f"child {i}") for i in range(4)]
    handles = manager.add_requests(children)
    fork = manager.fork_requests(np.repeat(handle, 4), handles)
    assert fork.num_requests == 3
    assert fork.page_copies().tolist() == [[2, 3], [2, 4], [2, 5]]
    assert not children[3].is_allocated
    with pytest.raises(IndexError, match=r"group must be in \[0, 1\), got 1"):
        fork.page_copies(1)


@pytest.mark.parametrize("wrong", ["fewer parents", "a child twice", "foreign handle"])
def test_a_step_refuses_bad_handles(wrong):
    manager = make_manager()
    parent = computed(manager, range(6))
    (handle,) = manager.add_requests([parent])
    handles = manager.add_requests([parent.copy("b"), parent.copy("c")])
    parents = np.repeat(handle, 2)
    arguments, message = {
        "fewer parents": ((parents[:1], handles), "parents must have one entry a request"),
        "a child twice": ((parents, handles[[0, 0]]), "request 'b' is there twice"),
        "foreign handle": ((parents + 7, handles), "is of no request"),
    }[wrong]
    with pytest.raises(ValueError, match=message):
        manager.fork_requests(*arguments)
    assert manager.num_requests == 1
    manager.check_invariants()


def test_refuses_a_parent_as_its_own_child():
    manager = make_manager()
    parent = computed(manager, range(6))
    with pytest.raises(ValueError, match=r"\[CacheManager.fork\] request 'parent' holds pages"):
        manager.fork(parent, parent)


def test_both_read_what_they_wrote_themselves():
    """Beams over real pages: each reads its own tokens back, the shared ones included."""
    manager = make_manager()
    pools = [jnp.zeros((32, PAGE_SIZE, 1, 8), jnp.float32) for _ in range(2)]
    rng = np.random.default_rng(0)

    def step(request, tokens):
        request.append(tokens)
        assert manager.allocate(request, len(tokens))
        slots = manager.slot_mapping([request], [len(tokens)])
        rows = jnp.broadcast_to(
            jnp.asarray(tokens, jnp.float32)[:, None, None], (len(tokens), 1, 8)
        )
        *pools[:], num_dropped = write_kv(*pools, rows, rows, slots)
        assert int(num_dropped) == 0
        manager.commit(request, request.num_tokens)

    parent = Request("parent", [])
    step(parent, list(range(1, 11)))
    beams = [parent]
    for i in range(3):
        source = beams[rng.integers(len(beams))]
        child = source.copy(f"beam {i}")
        (pairs,) = manager.fork(source, child)
        pools[:] = [pool.at[pairs[:, 1]].set(pool[pairs[:, 0]]) for pool in pools]
        beams.append(child)
        for n, beam in enumerate(beams):
            step(beam, [100 * (n + 1) + i, 1000 * (n + 1) + i])
    for beam in beams:
        read = gather_pages(pools[0], manager.page_ids(beam)).rows[..., 0, 0].reshape(-1)
        assert read[: beam.num_tokens].astype(int).tolist() == beam.tokens.tolist()
    manager.check_invariants()


def test_deduplicate_tells_the_rows_that_changed():
    manager = make_manager(deduplicate=True)
    requests = [Request(name, range(10)) for name in "abc"]
    handles = manager.add_requests(requests)
    counts = np.full(3, 10, np.int32)
    assert manager.allocate_step(handles, counts).num_requests == 3
    assert manager.commit_step(handles, counts).tolist() == [1, 2]
    assert manager.page_table(handles)[:, :2].tolist() == [[1, 2]] * 3
    manager.check_invariants()
    plain = make_manager()
    handles = plain.add_requests([Request("a", range(10))])
    plain.allocate_step(handles, counts[:1])
    assert plain.commit_step(handles, counts[:1]) is None


def test_a_child_has_no_digests_of_tokens_that_differ():
    """The parent was last hashed in pages of another size, by another manager."""
    group = CacheGroupSpec(FullAttentionSpec(8, 1, 8, "float32"))
    larger = CacheManager(32, [group], max_model_len=64)
    manager = make_manager(enable_caching=False)
    computed(larger, range(100, 132), "first")
    parent = Request("parent", range(100, 132))
    assert larger.match(parent) == 24
    assert manager.allocate(parent, 10)
    manager.commit(parent, 10)
    child = Request("child", [*range(100, 110), *[7] * 22])
    manager.fork(parent, child)
    manager.free(child)
    fresh = Request("fresh", child.tokens)
    assert larger.match(child) == larger.match(fresh) == 8
    assert (child.page_hashes() == fresh.page_hashes()).all()


def test_a_child_gets_the_speculative_pages_of_a_state():
    state = MambaSpec(16, [(4, 4)], "float32", num_speculative_pages=2)
    manager = make_manager(groups=[CacheGroupSpec(state)], enable_caching=False)
    parent = Request("parent", range(30))
    assert manager.allocate(parent, 5, num_lookahead_tokens=2)
    manager.commit(parent, 5)
    child = parent.copy("child")
    manager.fork(parent, child)
    assert manager.allocate(child, 1, num_lookahead_tokens=2)
    assert len(manager.page_ids(child)) == 3
    assert (manager.page_ids(child) > 0).all()
