"""EasyDeL's cache manager itself, without the rest of EasyDeL.

Its modules run unmodified, out of a folder with the `easydel` package (a checkout, or an unpacked
wheel) or out of the wheel of easydel 0.3.0. What they import and do not need is replaced: the
packages' own `__init__` would load a training stack.
"""

import enum
import importlib
import logging
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

VERSION = "0.3.0"
ESURGE = "easydel.inference.esurge"


class AttnMaskType(enum.StrEnum):
    """EasyDeL's enum."""

    FULL = "ATTN_MASK_FULL"
    SLIDING = "ATTN_MASK_SLIDING"
    CHUNK = "ATTN_MASK_CHUNK"


class FinishReason(enum.StrEnum):
    """The members that requests name."""

    STOP = enum.auto()
    LENGTH = enum.auto()
    ABORT = enum.auto()


@dataclass
class SamplingParams:
    """The fields of EasyDeL's that requests and managers read."""

    prompt_logprobs: int | None = None
    max_tokens: int = 64
    extra_args: dict[str, Any] | None = None
    guided_decoding: Any = None


def stand_ins() -> dict[str, dict[str, Any]]:
    """What takes the place of modules, by their name."""
    logger = logging.getLogger("easydel")
    logger.disabled = True
    return {
        "easydel.infra.utils": {"AttnMaskType": AttnMaskType},
        "easydel.inference.sampling_params": {"SamplingParams": SamplingParams},
        f"{ESURGE}.logger": {"logger": logger},
        f"{ESURGE}.engine_types": {
            "EngineCoreEvent": None,
            "EngineCoreEventType": None,
            "EngineCoreRequest": Any,
            "FinishReason": FinishReason,
        },
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


def load(root: Path) -> SimpleNamespace:
    """EasyDeL's modules `interface`, `manager`, `utils` and `request`.

    Raises:
      ModuleNotFoundError: If there is no easydel package in `root`.
    """
    if f"{ESURGE}.core.manager" not in sys.modules:
        for name in ("easydel", "easydel.inference", ESURGE, f"{ESURGE}.core", "easydel.infra"):
            package = types.ModuleType(name)
            package.__path__ = [str(root.resolve() / name.replace(".", "/"))]
            sys.modules[name] = package
        for name, contents in stand_ins().items():
            module = types.ModuleType(name)
            vars(module).update(contents)
            sys.modules[name] = module
    names = ("core.interface", "core.manager", "core.utils", "request")
    modules = [importlib.import_module(f"{ESURGE}.{name}") for name in names]
    return SimpleNamespace(**{m.__name__.rpartition(".")[2]: m for m in modules})
