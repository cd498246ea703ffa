"""A tiny random Gemma 3 in a GGUF file: two full layers among twelve, and a SentencePiece tokenizer."""

from pathlib import Path

import gguf
import numpy as np
from pagedkv.serving.gemma3 import Gemma3Config

WINDOW = 12
MARKERS = ["<pad>", "<eos>", "<bos>", "<unk>"]  # their ids are 0 to 3
TEXTS = ["\n", "\n\n", "  ", "   ", "<b>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# The best first. Nothing merges into "▁x▁", which cannot be cut in two tokens, nor into "then":
# "he" is better than "th", and then there is no way on.
PIECES = ["▁t", "he", "▁the", "an", "nd", "and", "▁a", "▁and", "en", "then", "th", "▁x▁"]
LETTERS = [*"▁abcdefghijklmnopqrst<>"]
TOKENS = MARKERS + TEXTS + BYTES + PIECES + LETTERS
CONTROL, USER_DEFINED, BYTE, NORMAL = 3, 4, 6, 1

CONFIG = Gemma3Config(
    num_layers=12,
    width=32,
    num_heads=4,
    num_kv_heads=1,
    head_dim=16,
    ffn_width=48,
    vocab_size=len(TOKENS),
    max_model_len=160,
    sliding_window=WINDOW,
    rope_base=100_000.0,
    rope_factor=2.0,
    rms_eps=1e-6,
)


def random_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    c = CONFIG
    heads, kv_heads = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    shapes = {"token_embd": (c.vocab_size, c.width), "output_norm": (c.width,)}
    for i in range(c.num_layers):
        shapes |= {
            f"blk.{i}.{name}": shape
            for name, shape in {
                "attn_norm": (c.width,),
                "attn_q": (heads, c.width),
                "attn_k": (kv_heads, c.width),
                "attn_v": (kv_heads, c.width),
                "attn_q_norm": (c.head_dim,),
                "attn_k_norm": (c.head_dim,),
                "attn_output": (c.width, heads),
                "post_attention_norm": (c.width,),
                "ffn_norm": (c.width,),
                "ffn_gate": (c.ffn_width, c.width),
                "ffn_up": (c.ffn_width, c.width),
                "ffn_down": (c.width, c.ffn_width),
                "post_ffw_norm": (c.width,),
            }.items()
        }
    return {
        f"{name}.weight": rng.standard_normal(shape, np.float32) * (1.0 if len(shape) == 1 else 0.3)
        for name, shape in shapes.items()
    }


def write_tiny_gemma3(path: Path, *, leave_out: str = "", space_prefix: bool = False) -> Path:
    c = CONFIG
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_block_count(c.num_layers)
    writer.add_context_length(c.max_model_len)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.ffn_width)
    writer.add_head_count(c.num_heads)
    writer.add_head_count_kv(c.num_kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_sliding_window(c.sliding_window)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_rope_scaling_factor(c.rope_factor)
    writer.add_layer_norm_rms_eps(c.rms_eps)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    kinds = [CONTROL] * len(MARKERS) + [USER_DEFINED] * len(TEXTS) + [BYTE] * len(BYTES)
    num_normal = len(PIECES) + len(LETTERS)
    writer.add_token_types(kinds + [NORMAL] * num_normal)
    writer.add_token_scores([-1000.0] * len(kinds) + [-float(rank) for rank in range(num_normal)])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(space_prefix)
    for name, tensor in random_tensors().items():
        if name != leave_out:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
