"""The paged cache of EasyDeL 0.1.3 itself, without the rest of EasyDeL.

Its module runs unmodified, out of the wheel. What it imports and does not need is replaced: its
pytrees are plain dataclasses here, which change nothing of what is written where.
"""

import dataclasses
import importlib
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

VERSION = "0.1.3"
ROOT = "easydel_0_1_3"  # beside the package `easydel` of another version
MODULE = f"{ROOT}.layers.caching.paged_attention.paged_attention_cache"


class EasyQuantizer:
    """EasyDeL's, with the one method that is asked for: none."""

    def __init__(self, method: Any) -> None:
        assert method is None

    def __call__(self, pages: Any) -> Any:
        return pages


@dataclasses.dataclass
class PartitionAxis:
    """Some fields of eformer's; not hashable, as it is."""

    batch_axis: Any = ("fsdp", "dp")
    head_axis: Any = "tp"
    key_sequence_axis: Any = "sp"
    attention_dim_axis: Any = None
    mlp_intermediate_axis: Any = "tp"


def stand_ins() -> dict[str, dict[str, Any]]:
    """What takes the place of modules, by their name."""
    return {
        "chex": {},
        "eformer": {},
        "eformer.escale": {"PartitionAxis": PartitionAxis},
        "eformer.jaximus": {"ImplicitArray": type("ImplicitArray", (), {})},
        "eformer.pytree": {"auto_pytree": dataclasses.dataclass},
        # Imported when a view is made.
        "easydel.infra.etils": {"EasyDeLQuantizationMethods": types.SimpleNamespace(NONE=None)},
        "easydel.layers.quantization.quantizers": {"EasyQuantizer": EasyQuantizer},
    }


def find_wheel() -> Path:
    """The wheel that the Makefile fetches.

    Raises:
      FileNotFoundError: If it is not there.
    """
    folder = Path(__file__).parents[2] / "build" / "peers"
    for wheel in folder.glob(f"easydel-{VERSION}-*.whl"):
        return wheel
    raise FileNotFoundError(f"no wheel of easydel {VERSION} in {folder}: run `make peers`")


def load(root: Path) -> types.ModuleType:
    """EasyDeL's module, out of a folder or wheel with the package `easydel`."""
    if MODULE not in sys.modules:
        sources = {ROOT: "easydel"}
        for part in MODULE.removeprefix(f"{ROOT}.").split(".")[:-1]:
            parent = list(sources)[-1]
            sources[f"{parent}.{part}"] = f"{sources[parent]}/{part}"
        for name, source in sources.items():
            package = types.ModuleType(name)
            package.__path__ = [str(root.resolve() / source)]
            sys.modules[name] = package
        with replaced():
            module = importlib.import_module(MODULE)
        sys.modules[MODULE] = module
    return sys.modules[MODULE]


def replaced() -> Any:
    """While this context lasts, imports find the stand-ins."""
    modules = {}
    for name, contents in stand_ins().items():
        modules[name] = types.ModuleType(name)
        vars(modules[name]).update(contents)
    modules["eformer"].escale = modules["eformer.escale"]  # type: ignore[attr-defined]
    return mock.patch.dict(sys.modules, modules)
