"""What a device of a mesh keeps of a layer."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pagedkv._core import (
    AttentionSpec,
    ChunkedLocalAttentionSpec,
    CrossAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from pagedkv.specs.layer_specs import Spec

AXES = ("tp", "dp")


@dataclass(frozen=True)
class MeshShape:
    """Devices that serve a model.

    Attributes:
      tp: Devices that kv heads and states are cut over.
      dp: Copies of the model; each has pages and requests of its own.
    """

    tp: int = 1
    dp: int = 1

    @classmethod
    def of(cls, mesh: Any) -> "MeshShape":
        """Reads ``"tp=8,dp=2"``, a mapping of such, a `jax.sharding.Mesh`, or None for one device.

        Raises:
          TypeError: If it is something else, or a size is no int.
          ValueError: If an axis is neither ``tp`` nor ``dp``, is named twice, or is below 1.
        """
        if isinstance(mesh, cls):
            return mesh
        if mesh is None:
            return cls()
        sizes: Any
        if isinstance(mesh, str):
            sizes = _read(mesh)
        else:
            sizes = mesh if isinstance(mesh, Mapping) else getattr(mesh, "shape", None)
        if not isinstance(sizes, Mapping):
            raise TypeError(f"[plan_memory] mesh must be such as 'tp=8,dp=2', got {mesh!r}")
        for name, size in sizes.items():
            if name not in AXES:
                raise ValueError(f"[plan_memory] mesh axis {name!r} is unknown, must be tp or dp")
            if isinstance(size, bool) or not hasattr(size, "__index__"):
                raise TypeError(f"[plan_memory] mesh axis {name} must be an int, got {size!r}")
            if size < 1:
                raise ValueError(f"[plan_memory] mesh axis {name} must be >= 1, got {size}")
        return cls(**{name: operator.index(size) for name, size in sizes.items()})

    @property
    def num_devices(self) -> int:
        return self.tp * self.dp


def on_device(spec: Spec, name: str, tp: int, num_groups: int | None) -> Spec:
    """What each of ``tp`` devices keeps of a layer.

    Heads are cut, and kept by several devices where there are more devices than heads; a latent row
    is kept by all (as vLLM and sglang-jax do). States are cut along their first axis, of heads or
    channels; of Mamba 2's groups each device has at least one.

    Args:
      spec: Of the whole layer.
      name: Of the layer, for messages.
      tp: Devices.
      num_groups: Groups of B and C in the channels of a Mamba 2 state. None: another state.

    Raises:
      ValueError: If heads or states cannot be cut so.
    """
    if tp == 1:
        return spec
    if isinstance(spec, MambaSpec):
        return _state_on_device(spec, name, tp, num_groups)
    if spec.use_mla:
        return spec
    return with_heads(spec, _shard("kv heads", spec.num_kv_heads, name, tp))


def with_heads(spec: Spec, num_kv_heads: int) -> Spec:
    """The same with another number of kv heads. A state stays as it is."""
    if not isinstance(spec, AttentionSpec):
        return spec
    arguments = (spec.page_size, num_kv_heads, spec.head_size, spec.dtype, spec.use_mla)
    head_size_v = None if spec.use_mla else spec.head_size_v
    if isinstance(spec, SlidingWindowSpec):
        return SlidingWindowSpec(*arguments, spec.sliding_window, head_size_v=head_size_v)
    if isinstance(spec, ChunkedLocalAttentionSpec):
        chunk = spec.attention_chunk_size
        return ChunkedLocalAttentionSpec(*arguments, chunk, head_size_v=head_size_v)
    if isinstance(spec, CrossAttentionSpec):
        return CrossAttentionSpec(*arguments, head_size_v=head_size_v)
    return FullAttentionSpec(*arguments, head_size_v=head_size_v)


def _shard(what: str, size: int, name: str, tp: int) -> int:
    if size % tp == 0:
        return size // tp
    if tp % size == 0:
        return 1
    fits = ", ".join(str(n) for n in range(1, 4 * size + 1) if size % n == 0 or n % size == 0)
    raise ValueError(
        f"[plan_memory] {size} {what} of {name} cannot be cut into tp={tp} shards: tp must divide "
        f"them or be a multiple of them, such as {fits}"
    )


def _state_on_device(spec: MambaSpec, name: str, tp: int, num_groups: int | None) -> MambaSpec:
    shapes = [list(shape) for shape in spec.shapes]
    copied = 0  # channels that devices keep beyond their even share
    if num_groups is not None:
        of_group = 2 * shapes[1][2]
        copied = (_shard("state groups", num_groups, name, tp) * tp - num_groups) * of_group
    shapes[0][0] += copied
    for shape in shapes:
        if shape[0] % tp:
            raise ValueError(
                f"[plan_memory] a state of {name} has {shape[0]} heads or channels, which cannot be "
                f"cut into tp={tp} shards"
            )
        shape[0] //= tp
    return MambaSpec(
        spec.page_size,
        shapes,
        spec.dtype,
        cache_mode=spec.cache_mode,
        num_speculative_pages=spec.num_speculative_pages,
    )


def _read(text: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.partition("="))
        if not size.isdecimal() or len(size) > 9 or name in sizes:
            raise ValueError(f"[plan_memory] mesh {text!r} is not such as 'tp=8,dp=2'")
        sizes[name] = int(size)
    return sizes
