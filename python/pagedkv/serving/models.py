"""The model families that `pagedkv generate` can serve."""

from . import gemma3, llama
from .family import Family
from .model_files import ModelFile, ModelFileError
from .paged_model import PagedModel

# By ``general.architecture`` of a GGUF file.
FAMILIES: dict[str, Family] = {"gemma3": gemma3.FAMILY, "llama": llama.FAMILY}


def load_model(file: ModelFile, kv_dtype: str = "bfloat16") -> PagedModel:
    """Reads a model, its weights as f32.

    Args:
      file: A GGUF file.
      kv_dtype: What its pages keep; see `PagedModel`.

    Raises:
      ModelFileError: If the architecture is unknown, or the file is not complete.
    """
    architecture = file.require("general.architecture")
    family = FAMILIES.get(architecture)
    if family is None:
        raise ModelFileError(
            f"[load_model] {file.path} is a {architecture!r} model: "
            f"only {' and '.join(map(repr, FAMILIES))} are supported"
        )
    config = family.load_config(file)
    return PagedModel(family, config, family.load_weights(file, config), kv_dtype)
