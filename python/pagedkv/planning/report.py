"""`MemoryPlan`: what the planner found, and its JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from pagedkv._core import AttentionSpec, CacheGroupSpec, MambaSpec
from pagedkv.planning.groups import PlannedGroup
from pagedkv.planning.mesh import MeshShape
from pagedkv.planning.waste import Waste, total_waste

SCHEMA = "pagedkv.plan/1"


@dataclass(frozen=True)
class MemoryPlan:
    """How many pages a device has room for, and how many requests these serve.

    Bytes are those on one device, unless a name says ``whole``: then on the ``tp`` devices of one
    replica together. A page id stands for ``page_size`` tokens of all layers of one group; a device
    keeps its share of the page.

    Attributes:
      model: The config's ``model_type``.
      num_layers: Layers that keep something.
      dtype: Of K and V.
      layouts: Of the page arrays: latent layers (MLA) have one of their own, states none.
      scales: What shares a scale: "token", "page", "static", or "none".
      page_size: Tokens of a page that were asked for; groups may have multiples of it.
      max_model_len: Tokens of a longest request.
      max_num_batched_tokens: Tokens of the largest step.
      max_encoder_tokens: Tokens of the longest encoder input; 0 without cross attention.
      mesh: Devices.
      memory: Bytes of a device.
      hbm_utilization: The part of it that the model and its pages may take.
      weights: Bytes of weights.
      kv_bytes: Bytes for pages: ``int(memory * hbm_utilization) - weights``.
      groups: Layers that share page tables.
      pages_per_request: Page ids that a longest request holds at most, of each group.
      wastes: Of these pages, of each group.
      num_pages_per_rank: Page ids of a replica; in the first, the null page is one of them.
      max_concurrent_requests: Longest requests that fit at a time, over all replicas.
      single_type_bytes: Bytes of a longest request if all layers kept all tokens, or None.
    """

    model: str
    num_layers: int
    dtype: str
    layouts: tuple[str, ...]
    scales: str
    page_size: int
    max_model_len: int
    max_num_batched_tokens: int
    max_encoder_tokens: int
    mesh: MeshShape
    memory: int
    hbm_utilization: float
    weights: int
    kv_bytes: int
    groups: tuple[PlannedGroup, ...]
    pages_per_request: tuple[int, ...]
    wastes: tuple[Waste, ...]
    num_pages_per_rank: int
    max_concurrent_requests: int
    single_type_bytes: int | None

    @property
    def page_bytes(self) -> int:
        """Bytes of a page id."""
        return self.groups[0].page_bytes

    @property
    def bytes_per_token(self) -> float:
        """Bytes that a token writes in all attention layers, those with a window among them."""
        return sum(group.bytes_per_token for group in self.groups)

    @property
    def num_pages(self) -> int:
        """Page ids of all replicas: what a `CacheManager` with ``data_parallel_size`` takes."""
        return self.num_pages_per_rank * self.mesh.dp

    @property
    def request_pages(self) -> int:
        """Page ids that a longest request holds at most."""
        return sum(self.pages_per_request)

    @property
    def request_bytes(self) -> int:
        """Bytes of a longest request."""
        return self.request_pages * self.page_bytes

    @property
    def concurrency(self) -> float:
        """`max_concurrent_requests` before it is rounded down: vLLM's "maximum concurrency"."""
        return (self.num_pages - 1) / self.request_pages

    @property
    def num_tokens(self) -> int:
        """Tokens of requests of the longest length that fit, over all replicas."""
        return int((self.num_pages - 1) * self.max_model_len // self.request_pages)

    @property
    def waste(self) -> Waste:
        """Of all groups."""
        return total_waste(self.wastes)

    @property
    def left_over_bytes(self) -> int:
        """Bytes for pages that no longest request takes: the null page, and what is too little."""
        num_requests = (self.num_pages_per_rank - 1) // self.request_pages
        return self.kv_bytes - num_requests * self.request_bytes

    @property
    def single_type_ratio(self) -> float | None:
        """Bytes of a longest request if all layers kept all tokens, by those that it needs."""
        if self.single_type_bytes is None:
            return None
        return self.single_type_bytes / self.request_bytes

    @property
    def kv_cache_groups(self) -> list[CacheGroupSpec]:
        """The groups for a `CacheManager`, which then has as many pages as were planned."""
        return [group.cache_group for group in self.groups]

    def to_dict(self) -> dict[str, Any]:
        """The plan as a dict that JSON can hold; docs/planner.md describes it."""
        tp = self.mesh.tp
        return {
            "schema": SCHEMA,
            "model": self.model,
            "num_layers": self.num_layers,
            "dtype": self.dtype,
            "layouts": list(self.layouts),
            "scales": self.scales,
            "page_size": self.page_size,
            "max_model_len": self.max_model_len,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "max_encoder_tokens": self.max_encoder_tokens,
            "mesh": {"tp": tp, "dp": self.mesh.dp, "num_devices": self.mesh.num_devices},
            "device": {
                "memory": self.memory,
                "hbm_utilization": self.hbm_utilization,
                "weights": self.weights,
                "kv_bytes": self.kv_bytes,
                "page_bytes": self.page_bytes,
                "bytes_per_token": self.bytes_per_token,
                "request_bytes": self.request_bytes,
                "left_over_bytes": self.left_over_bytes,
            },
            "whole": {
                "page_bytes": self.page_bytes * tp,
                "bytes_per_token": self.bytes_per_token * tp,
                "request_bytes": self.request_bytes * tp,
            },
            "num_pages_per_rank": self.num_pages_per_rank,
            "num_pages": self.num_pages,
            "num_tokens": self.num_tokens,
            "pages_per_request": self.request_pages,
            "concurrency": self.concurrency,
            "max_concurrent_requests": self.max_concurrent_requests,
            "waste_per_request": {**asdict(self.waste), "total": self.waste.total},
            "single_type_bytes": self.single_type_bytes,
            "single_type_ratio": self.single_type_ratio,
            "groups": [
                _group_dict(group, num_pages, waste)
                for group, num_pages, waste in zip(
                    self.groups, self.pages_per_request, self.wastes, strict=True
                )
            ],
        }

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)


def _group_dict(group: PlannedGroup, num_pages: int, waste: Waste) -> dict[str, Any]:
    spec = group.spec
    return {
        "kind": group.kind,
        "layers": list(group.layers),
        "page_size": group.page_size,
        "window": group.window,
        "num_kv_heads": spec.num_kv_heads if isinstance(spec, AttentionSpec) else None,
        "head_size": spec.head_size if isinstance(spec, AttentionSpec) else None,
        "head_size_v": spec.head_size_v if isinstance(spec, AttentionSpec) else None,
        "state_shapes": [list(s) for s in spec.shapes] if isinstance(spec, MambaSpec) else None,
        "bytes_per_token": group.bytes_per_token,
        "stored_page_bytes": group.stored_bytes,
        "pages_per_request": num_pages,
        "waste_per_request": {**asdict(waste), "total": waste.total},
    }
