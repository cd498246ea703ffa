"""Long prompts are hashed without Python's lock; what gets in their way is refused."""

import threading

import numpy as np
import pytest
from pagedkv import CacheGroupSpec, CacheManager, FullAttentionSpec, PageHasher, Request

NUM_TOKENS = 4_000_000  # with pages of 4 tokens about 0.1 s of hashing


def make_manager():
    spec = FullAttentionSpec(page_size=4, num_kv_heads=1, head_size=8, dtype="float32")
    return CacheManager(64, [CacheGroupSpec(spec)], NUM_TOKENS)


class Worker:
    """Runs ``work`` in a thread, and tells whether it is still at it."""

    def __init__(self, work):
        self.started = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(work,))
        self.thread.start()
        self.started.wait()

    def run(self, work):
        self.started.set()
        work()

    def refusals(self, call):
        """Calls ``call`` until the thread ends; gives the texts of its RuntimeErrors."""
        texts = set()
        while self.thread.is_alive():
            try:
                call()
            except RuntimeError as error:
                texts.add(str(error))
        self.thread.join()
        return texts


@pytest.fixture
def request_of_a_long_prompt():
    return Request("long", np.arange(NUM_TOKENS, dtype=np.int32))


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("match", lambda manager, other: manager.match(other)),
        ("allocate", lambda manager, other: manager.allocate(other, 1)),
        ("commit", lambda manager, other: manager.commit(other, 4)),
        ("free", lambda manager, other: other.is_allocated and manager.free(other)),
        ("reset_prefix_cache", lambda manager, other: manager.reset_prefix_cache()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_manager_in_use_refuses_other_threads(operation, call, request_of_a_long_prompt):
    manager = make_manager()
    other = Request("other", range(8))
    assert manager.allocate(other, 4)
    manager.commit(other, 4)
    worker = Worker(lambda: manager.match(request_of_a_long_prompt))
    refused = worker.refusals(lambda: call(manager, other))
    assert refused == {f"[CacheManager.{operation}] the manager is in use by another thread"}
    manager.check_invariants()


def test_counters_and_tables_can_be_read_meanwhile(request_of_a_long_prompt):
    manager = make_manager()
    other = Request("other", range(8))
    assert manager.allocate(other, 8)
    worker = Worker(lambda: manager.match(request_of_a_long_prompt))
    seen = 0
    while worker.thread.is_alive():
        assert manager.num_free_pages == 61
        assert manager.page_table([other]).tolist() == [[1, 2]]
        seen += 1
    assert seen > 1


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("Request.append", lambda request: request.append(1)),
        ("Request.page_hash", lambda request: request.page_hash(0)),
        ("Request.page_hashes", lambda request: request.page_hashes(first_page=10**6)),
        ("PageHasher.page_hashes", lambda request: PageHasher().page_hashes(request, 4)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_in_use_refuses_other_threads(operation, call, request_of_a_long_prompt):
    request = request_of_a_long_prompt
    make_manager().match(Request("warm", range(8)))
    hasher = PageHasher(seed="another")
    make_manager().match(request)
    worker = Worker(lambda: hasher.page_hashes(request, 4))
    tokens_before = request.num_tokens

    def call_once():
        if request.num_tokens == tokens_before:
            call(request)

    refused = worker.refusals(call_once)
    assert refused == {f"[{operation}] the request is in use by another thread"}


def test_two_managers_refuse_the_same_request(request_of_a_long_prompt):
    worker = Worker(lambda: make_manager().match(request_of_a_long_prompt))
    other = make_manager()
    refused = worker.refusals(lambda: other.allocate(request_of_a_long_prompt, 1))
    assert "[CacheManager.allocate] the request is in use by another thread" in refused


def test_threads_with_managers_of_their_own_do_not_meet():
    prompts = [Request(str(i), np.arange(400_000, dtype=np.int32)) for i in range(4)]
    expected = PageHasher().page_hashes(Request("e", np.arange(400_000, dtype=np.int32)), 4)
    workers = [Worker(lambda p=prompt: make_manager().match(p)) for prompt in prompts]
    for worker in workers:
        worker.thread.join()
    for prompt in prompts:
        assert (prompt.page_hashes() == expected).all()
