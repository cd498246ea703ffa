"""tpu-inference's attention kernels, without the rest of tpu-inference.

Their modules run unmodified, out of the wheel. What they import and their references do not need is
replaced: the package's own `__init__` would load vLLM's plugin.
"""

import importlib
import logging
import sys
import types
from pathlib import Path
from types import SimpleNamespace

VERSION = "0.32.0"
_ATTENTION = "tpu_inference.kernels.ragged_paged_attention.v3"


def find_wheel() -> Path:
    """The wheel that the Makefile fetches.

    Raises:
      FileNotFoundError: If it is not there.
    """
    folder = Path(__file__).parents[2] / "build" / "peers"
    for wheel in folder.glob(f"tpu_inference-{VERSION}-*.whl"):
        return wheel
    raise FileNotFoundError(f"no wheel of tpu-inference {VERSION} in {folder}: run `make peers`")


def load(wheel: Path) -> SimpleNamespace:
    """The modules `kernel`, `kernel_hd64` and `mla`."""
    package = types.ModuleType("tpu_inference")
    package.__path__ = [f"{wheel}/tpu_inference"]
    stand_ins = {
        "tpu_inference": package,
        "tpu_inference.logger": types.ModuleType("tpu_inference.logger"),
        "tpu_inference.utils": types.ModuleType("tpu_inference.utils"),
    }
    stand_ins["tpu_inference.logger"].init_logger = logging.getLogger
    stand_ins["tpu_inference.utils"].get_device_name = lambda *_: "TPU v6e"
    sys.modules.update(stand_ins)
    return SimpleNamespace(
        kernel=importlib.import_module(f"{_ATTENTION}.kernel"),
        kernel_hd64=importlib.import_module(f"{_ATTENTION}.kernel_hd64"),
        mla=importlib.import_module("tpu_inference.kernels.mla.v1.kernel"),
    )
