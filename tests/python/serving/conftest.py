"""A tiny random llama in a GGUF file, and what its answers must be."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from pagedkv.serving import dense
from pagedkv.serving.llama import LlamaConfig
from pagedkv.serving.model_files import ModelFile
from pagedkv.serving.models import load_model
from pagedkv.serving.paged_model import PagedModel
from pagedkv.serving.tokenizer import ChatTokenizer
from tokenizers import pre_tokenizers

CONFIG = LlamaConfig(
    num_layers=2,
    width=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    ffn_width=64,
    vocab_size=265,
    max_model_len=128,
    rope_base=10_000.0,
    rms_eps=1e-5,
)
Q8_0 = gguf.GGMLQuantizationType.Q8_0
MARKERS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ the", "a n", "Ġ an", "Ġan d"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def random_tensors() -> dict[str, np.ndarray]:
    """The tensors of CONFIG, with query and key rows in the order of Hugging Face."""
    rng = np.random.default_rng(7)
    c = CONFIG
    heads, kv_heads = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    shapes = {"token_embd": (c.vocab_size, c.width), "output_norm": (c.width,)}
    for i in range(c.num_layers):
        shapes |= {
            f"blk.{i}.attn_norm": (c.width,),
            f"blk.{i}.attn_q": (heads, c.width),
            f"blk.{i}.attn_k": (kv_heads, c.width),
            f"blk.{i}.attn_v": (kv_heads, c.width),
            f"blk.{i}.attn_output": (c.width, heads),
            f"blk.{i}.ffn_norm": (c.width,),
            f"blk.{i}.ffn_gate": (c.ffn_width, c.width),
            f"blk.{i}.ffn_up": (c.ffn_width, c.width),
            f"blk.{i}.ffn_down": (c.width, c.ffn_width),
        }
    return {
        f"{name}.weight": rng.standard_normal(shape, np.float32) * (1.0 if len(shape) == 1 else 0.3)
        for name, shape in shapes.items()
    }


def interleave_rope_rows(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """What the converters of llama.cpp do to query and key rows."""
    halves = rows.reshape(num_heads, 2, -1, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write_tiny_llama(
    path: Path,
    *,
    architecture: str = "llama",
    pre: str = "smollm",
    add: dict[str, np.ndarray] | None = None,
    leave_out: str = "",
    quantise: str = "",
) -> Path:
    c = CONFIG
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(c.num_layers)
    writer.add_context_length(c.max_model_len)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.ffn_width)
    writer.add_head_count(c.num_heads)
    writer.add_head_count_kv(c.num_kv_heads)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_layer_norm_rms_eps(c.rms_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = MARKERS + sorted(pre_tokenizers.ByteLevel.alphabet()) + merged
    assert len(tokens) == c.vocab_size
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(MARKERS) + [1] * (len(tokens) - len(MARKERS)))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    heads = {"attn_q": c.num_heads, "attn_k": c.num_kv_heads}
    for name, tensor in {**random_tensors(), **(add or {})}.items():
        kind = name.split(".")[-2]
        if kind in heads and tensor.ndim == 2:
            tensor = interleave_rope_rows(tensor, heads[kind])
        if name == quantise:
            writer.add_tensor(name, gguf.quantize(tensor, Q8_0), raw_dtype=Q8_0)
        elif name != leave_out:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def write_llama() -> Callable[..., Path]:
    return write_tiny_llama


@pytest.fixture(scope="session")
def tensors() -> dict[str, np.ndarray]:
    return random_tensors()


@pytest.fixture(scope="session")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def llama_file(llama_path: Path) -> ModelFile:
    return ModelFile(llama_path)


@pytest.fixture(scope="session")
def tokenizer(llama_file: ModelFile) -> ChatTokenizer:
    return ChatTokenizer(llama_file)


@pytest.fixture(scope="session")
def model(llama_file: ModelFile) -> PagedModel:
    return load_model(llama_file, "float32")


@pytest.fixture(scope="session")
def score() -> Callable[[PagedModel, np.ndarray, int], np.ndarray]:
    """Logits ``[n, vocab]`` of a whole text at once, padded to ``length``: no cache of any kind."""
    return lambda model, tokens, length: np.asarray(dense.score(model, tokens, length))
