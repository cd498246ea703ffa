from collections.abc import Callable
from pathlib import Path

import numpy as np
from pagedkv.serving.llama import LlamaConfig, load_config, load_weights
from pagedkv.serving.model_files import ModelFile
from pagedkv.serving.paged_model import PagedModel

Tensors = dict[str, np.ndarray]


def test_reads_the_sizes(llama_file: ModelFile) -> None:
    config = load_config(llama_file)
    expected = LlamaConfig(2, 32, 4, 2, 8, 64, 265, 128, 10_000.0, config.rms_eps)
    assert config == expected
    assert np.float32(config.rms_eps) == np.float32(1e-5)


def test_stacks_layers_and_joins_matrices(model: PagedModel, tensors: Tensors) -> None:
    layers = model.weights.layers
    for i in range(2):
        names = [f"blk.{i}.attn_{name}.weight" for name in "qkv"]
        np.testing.assert_array_equal(layers.qkv[i], np.concatenate([tensors[n] for n in names]))
        np.testing.assert_array_equal(layers.ffn_down[i], tensors[f"blk.{i}.ffn_down.weight"])
        np.testing.assert_array_equal(layers.ffn_norm[i], tensors[f"blk.{i}.ffn_norm.weight"])


def test_output_is_tied_to_the_embedding_unless_the_file_has_one(
    model: PagedModel, tmp_path: Path, write_llama: Callable[..., Path]
) -> None:
    assert model.weights.output is model.weights.embedding
    output = np.ones((265, 32), np.float32)
    file = ModelFile(write_llama(tmp_path / "a.gguf", add={"output.weight": output}))
    np.testing.assert_array_equal(load_weights(file, load_config(file)).output, output)


def test_dequantises(tmp_path: Path, tensors: Tensors, write_llama: Callable[..., Path]) -> None:
    name = "token_embd.weight"
    file = ModelFile(write_llama(tmp_path / "a.gguf", quantise=name))
    embedding = np.asarray(load_weights(file, load_config(file)).embedding)
    assert np.any(embedding != tensors[name])
    np.testing.assert_allclose(embedding, tensors[name], atol=np.abs(tensors[name]).max() / 127)
