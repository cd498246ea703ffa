"""Where the K/V of each layer is, when layers of several attention types share one pool of pages."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pagedkv import CacheGroupSpec, create_kv_cache_specs_from_config

from .family import ModelConfig


def make_groups(config: ModelConfig, page_size: int, kv_dtype: str) -> list[CacheGroupSpec]:
    """Splits the layers into groups of one attention type and of equal numbers of layers.

    Then a page is of the same size in every group: whichever takes it, its layer ``j`` keeps its K/V
    in tensor ``j``. So one pool serves all, and pages that a window has left behind go to whoever
    needs one next. The idea is vLLM's.
    """
    has_window = [window is not None for window in config.windows]
    fields = {
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "sliding_window": next(filter(None, config.windows), None),
        "layer_types": ["sliding_attention" if w else "full_attention" for w in has_window],
    }
    by_type = create_kv_cache_specs_from_config(
        fields, page_size, config.num_kv_heads, config.head_dim, kv_dtype
    )
    size = math.gcd(*(len(group.layer_names or []) for group in by_type))
    return [
        CacheGroupSpec(group.kv_cache_spec, names[i : i + size])
        for group in by_type
        for names in [group.layer_names or []]
        for i in range(0, len(names), size)
    ]


@dataclass(frozen=True)
class LayerPlaces:
    """The group, the tensor and the window of each layer. Hashable."""

    groups: tuple[int, ...]
    tensors: tuple[int, ...]
    windows: tuple[int | None, ...]

    @classmethod
    def of(cls, config: ModelConfig) -> "LayerPlaces":
        places = {
            name: (group, tensor)
            for group, spec in enumerate(make_groups(config, page_size=1, kv_dtype="int8"))
            for tensor, name in enumerate(spec.layer_names or [])
        }
        groups, tensors = zip(
            *(places[f"layer.{i}"] for i in range(config.num_layers)), strict=True
        )
        return cls(groups, tensors, config.windows)

    @property
    def num_groups(self) -> int:
        return max(self.groups) + 1

    @property
    def num_tensors(self) -> int:
        return max(self.tensors) + 1

    def at(self, layer: jax.Array) -> tuple[int | jax.Array, jax.Array, int | jax.Array | None]:
        """Returns the group, the tensor and the window of a layer that is known at run time."""
        if self.num_groups == 1:
            return 0, layer, self.windows[0]
        no_window = jnp.iinfo(jnp.int32).max
        windows = [no_window if window is None else window for window in self.windows]
        groups, tensors, windows_ = (
            jnp.array(numbers, jnp.int32) for numbers in (self.groups, self.tensors, windows)
        )
        return groups[layer], tensors[layer], windows_[layer]
