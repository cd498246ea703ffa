"""Meshes of TPUs that are not there, to lower programs for them."""

import inspect

from jax.sharding import AbstractDevice, AbstractMesh, AxisType


def tpu_mesh(kind, size=1):
    """A mesh with axis "x" of ``size`` devices of a kind, such as "TPU v5e"."""
    fields = {"device_kind": kind, "num_cores": 1, "platform": "tpu"}
    known = inspect.signature(AbstractDevice).parameters  # jax 0.9 has no platform
    device = AbstractDevice(**{name: value for name, value in fields.items() if name in known})
    return AbstractMesh((size,), ("x",), axis_types=(AxisType.Auto,), abstract_device=device)
