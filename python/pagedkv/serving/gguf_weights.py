"""Takes tensors out of a GGUF file, as f32 arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import gguf
import jax
import jax.numpy as jnp
import numpy as np

from .model_files import ModelFile, ModelFileError

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


class Tensors:
    """The weights of a file by name, without ``.weight``. Each is dequantised when it is taken."""

    def __init__(self, file: ModelFile) -> None:
        self._path = file.path
        self._left = {tensor.name: tensor for tensor in file.tensors}

    def __contains__(self, name: str) -> bool:
        return f"{name}.weight" in self._left

    def take(self, name: str) -> FloatArray:
        """Returns a tensor and forgets it.

        Raises:
          ModelFileError: If there is none of that name, or it was taken.
        """
        name = f"{name}.weight"
        if name not in self._left:
            raise ModelFileError(f"[load_model] {self._path} has no tensor {name!r}")
        tensor = self._left.pop(name)
        return gguf.dequantize(tensor.data, tensor.tensor_type)

    def take_layers(
        self,
        num_layers: int,
        fields: Mapping[str, tuple[str, ...]],
        change: Callable[[str, FloatArray], FloatArray] = lambda _, tensor: tensor,
    ) -> dict[str, jax.Array]:
        """Takes the tensors of all layers, stacked for ``lax.scan``.

        Args:
          num_layers: The first axis of each array.
          fields: Name of an array -> the tensors of one layer that it joins, one after the other by
            output row.
          change: What to do to the tensor of a name first.

        Raises:
          ModelFileError: If a tensor is missing.
        """

        def take_layer(layer: int, names: tuple[str, ...]) -> FloatArray:
            return np.concatenate([change(n, self.take(f"blk.{layer}.{n}")) for n in names])

        return {
            field: jnp.asarray(np.stack([take_layer(i, names) for i in range(num_layers)]))
            for field, names in fields.items()
        }

    def require_empty(self, family: str) -> None:
        """Refuses a file with tensors that were not taken: the model would be another one."""
        if self._left:
            raise ModelFileError(
                f"[load_model] {self._path} has a tensor {min(self._left)!r}: "
                f"a plain {family} has none"
            )
