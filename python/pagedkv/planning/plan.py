"""`plan_memory`: from a model's config, memory and a mesh to pages and requests."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from pagedkv._core import MambaSpec
from pagedkv.layouts import KVLayout
from pagedkv.planning.groups import DeviceLayer, make_groups
from pagedkv.planning.mesh import MeshShape, on_device
from pagedkv.planning.model import Model, load_config, read_model
from pagedkv.planning.report import MemoryPlan
from pagedkv.planning.sizes import ceil_div, format_bytes, parse_bytes, parse_tokens
from pagedkv.planning.stored import Storage
from pagedkv.planning.suggestion import DoesNotFitError, Suggestion, longest_that_fits
from pagedkv.planning.waste import single_type_bytes, waste_of_group
from pagedkv.specs.page_budget import estimate_runtime_page_budget

MAX_NUM_BATCHED_TOKENS = 8192
_MAX_INT32 = 2**31 - 1


def plan_memory(
    config: Any,
    memory: int | str,
    *,
    mesh: Any = None,
    page_size: int = 16,
    dtype: object = None,
    max_model_len: int | str | None = None,
    weights: int | str = 0,
    hbm_utilization: float = 1.0,
    layout: KVLayout | str = KVLayout.NHD,
    scales: str | None = None,
    max_num_batched_tokens: int | str = MAX_NUM_BATCHED_TOKENS,
    max_encoder_tokens: int | str | None = None,
) -> MemoryPlan:
    """Plans the KV cache of a model.

    The page maths are vLLM's (`CacheSpec.max_memory_usage_bytes`, groups of equal pages), on one more
    level: bytes are as stored, with what layouts round up and the scales of quantised pages.

    Args:
      config: A Hugging Face config: a dict, an object, or a path of a ``config.json`` or of its
        folder. Or what else `create_kv_cache_specs_from_config` takes.
      memory: Bytes of one device, such as ``"80GiB"``.
      mesh: Such as ``"tp=8,dp=2"``, a dict of such, a `jax.sharding.Mesh` with axes of these names,
        or None for one device. ``tp`` cuts kv heads and states over devices; devices share a head
        where there are more of them, and all keep latent rows (MLA). Each of ``dp`` replicas has
        pages of its own.
      page_size: Tokens of a page.
      dtype: Of K and V, by its name or a short one (bf16, fp16, fp32, fp8). None: the config's, else
        bfloat16. States of recurrent layers have the config's in any case.
      max_model_len: Tokens of the longest request, such as ``"128k"`` (131,072). None: the config's.
      weights: Bytes of the whole model's weights, of which a device has ``1 / tp``.
      hbm_utilization: The part of ``memory`` that weights and pages may take, in ``(0, 1]``.
      layout: Of the page arrays, a `KVLayout` or its name. Latent layers have ``LATENT``, or
        ``LATENT_PACKED`` beside a layout that rounds up, or the latent layout named here.
      scales: Of int8, int4 and fp8: "token", "page" or "static", as `ops.QuantizedPages` has them,
        or "none" for bare elements. None: "token".
      max_num_batched_tokens: Tokens of the largest step: a window keeps those too.
      max_encoder_tokens: Tokens of the longest encoder input. None: the config's.

    Raises:
      DoesNotFitError: If not even one longest request fits; its ``suggestion`` says what would. A
        ValueError.
      ValueError: If an argument or a field is missing or out of range, or heads cannot be cut.
      TypeError: If one is of another type.
      OSError: If ``config`` is a path that cannot be read.

    Example:
        >>> from pagedkv import plan_memory
        >>> llama = {
        ...     "model_type": "llama",
        ...     "num_hidden_layers": 80,
        ...     "num_attention_heads": 64,
        ...     "num_key_value_heads": 8,
        ...     "hidden_size": 8192,
        ...     "max_position_embeddings": 131072,
        ... }
        >>> plan = plan_memory(llama, "80GiB", mesh="tp=8,dp=2", weights="141GB")
        >>> plan.bytes_per_token, plan.page_bytes, plan.num_pages, plan.max_concurrent_requests
        (40960.0, 655360, 208356, 24)
    """
    mesh = MeshShape.of(mesh)
    if isinstance(config, str | PathLike):
        config = load_config(str(config))
    request = _Request(
        config=config,
        memory=parse_bytes("memory", memory),
        weights=ceil_div(parse_bytes("weights", weights), mesh.tp),
        hbm_utilization=_utilization(hbm_utilization),
        mesh=mesh,
        page_size=_at_least_one("page_size", page_size),
        dtype=dtype,
        max_model_len=_optional_tokens("max_model_len", max_model_len),
        layout=layout,
        scales=scales,
        max_num_batched_tokens=_at_least_one(
            "max_num_batched_tokens", parse_tokens("max_num_batched_tokens", max_num_batched_tokens)
        ),
        max_encoder_tokens=_optional_tokens("max_encoder_tokens", max_encoder_tokens),
    ).with_lengths()
    plan = request.plan()
    if plan.num_pages_per_rank - 1 >= plan.request_pages:
        return plan
    raise DoesNotFitError(_reason(plan), request.suggest(plan))


@dataclass(frozen=True)
class _Request:
    """What is planned for."""

    config: Any
    memory: int
    weights: int
    hbm_utilization: float
    mesh: MeshShape
    page_size: int
    dtype: object
    max_model_len: int | None
    layout: KVLayout | str
    scales: str | None
    max_num_batched_tokens: int
    max_encoder_tokens: int | None

    @property
    def kv_bytes(self) -> int:
        usable = int(self.memory * self.hbm_utilization)  # may round to more than the memory
        return min(self.memory, usable) - self.weights

    def model(self) -> Model:
        return read_model(self.config, self.page_size, self.dtype)

    def with_lengths(self) -> "_Request":
        """The lengths that were not given, from the config."""
        model = self.model()
        return replace(
            self,
            max_model_len=_length("max_model_len", self.max_model_len, model.max_model_len),
            max_encoder_tokens=_length(
                "max_encoder_tokens", self.max_encoder_tokens, model.max_encoder_tokens
            ),
        )

    def plan(self) -> MemoryPlan:
        """The plan, which fits or not."""
        model = self.model()
        storage = Storage.of(self.layout, self.scales, model.dtype)
        layers = [
            DeviceLayer(
                layer.name,
                on_device(layer.spec, layer.name, self.mesh.tp, model.num_state_groups),
                layer.spec,
            )
            for layer in model.layers
        ]
        groups = make_groups(layers, storage)
        assert self.max_model_len is not None
        assert self.max_encoder_tokens is not None
        slots_per_page = max(group.page_size for group in groups)
        num_pages = min(
            max(0, self.kv_bytes) // groups[0].page_bytes,
            _MAX_INT32 // slots_per_page // self.mesh.dp,  # slots are int32
        )
        budget = estimate_runtime_page_budget(
            num_pages=num_pages * self.mesh.dp,
            kv_cache_groups=[group.cache_group for group in groups],
            max_model_len=self.max_model_len,
            max_num_batched_tokens=self.max_num_batched_tokens,
            data_parallel_size=self.mesh.dp,
            max_encoder_tokens=self.max_encoder_tokens,
        )
        return MemoryPlan(
            model=model.name,
            num_layers=model.num_layers,
            dtype=model.dtype,
            layouts=_layouts(layers, storage),
            scales=storage.scales,
            page_size=self.page_size,
            max_model_len=self.max_model_len,
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_encoder_tokens=self.max_encoder_tokens,
            mesh=self.mesh,
            memory=self.memory,
            hbm_utilization=self.hbm_utilization,
            weights=self.weights,
            kv_bytes=self.kv_bytes,
            groups=groups,
            pages_per_request=budget.per_group_pages,
            wastes=tuple(
                waste_of_group(group, pages, self.max_model_len, self.mesh.tp)
                for group, pages in zip(groups, budget.per_group_pages, strict=True)
            ),
            num_pages_per_rank=num_pages,
            max_concurrent_requests=budget.max_num_seqs,
            single_type_bytes=single_type_bytes(
                layers,
                storage,
                max_model_len=self.max_model_len,
                max_encoder_tokens=self.max_encoder_tokens,
            ),
        )

    def suggest(self, plan: MemoryPlan) -> Suggestion:
        length, page_size = longest_that_fits(self._fits, self.page_size, plan.max_model_len)
        return Suggestion(
            max_model_len=length,
            page_size=page_size,
            memory=self._memory_for((plan.request_pages + 1) * plan.page_bytes),
        )

    def _fits(self, page_size: int, max_model_len: int) -> bool:
        try:
            plan = replace(self, page_size=page_size, max_model_len=max_model_len).plan()
        except ValueError:  # a page size that a layout cannot have
            return False
        return plan.num_pages_per_rank - 1 >= plan.request_pages

    def _memory_for(self, kv_bytes: int) -> int:
        memory = max(kv_bytes + self.weights, int((kv_bytes + self.weights) / self.hbm_utilization))
        while replace(self, memory=memory).kv_bytes < kv_bytes:  # what the division rounded off
            memory += 1
        return memory


def _layouts(layers: Sequence[DeviceLayer], storage: Storage) -> tuple[str, ...]:
    """Names of the layouts that layers have; none of states."""
    specs = (layer.spec for layer in layers if not isinstance(layer.spec, MambaSpec))
    return tuple(dict.fromkeys(storage.layout_of(spec).name for spec in specs))


def _reason(plan: MemoryPlan) -> str:
    needed = (plan.request_pages + 1) * plan.page_bytes
    return (
        f"[plan_memory] a request of {plan.max_model_len} tokens and the null page need "
        f"{format_bytes(needed)} of each device, and pages may take "
        f"{format_bytes(max(0, plan.kv_bytes))}"
    )


def _length(name: str, given: int | None, of_config: int | None) -> int:
    length = of_config if given is None else given
    if length is None:
        raise ValueError(
            f"[plan_memory] the config does not say how long requests are: give {name}"
        )
    if length > _MAX_INT32:
        raise ValueError(f"[plan_memory] {name} must be at most {_MAX_INT32}, got {length}")
    return length


def _optional_tokens(name: str, value: int | str | None) -> int | None:
    if value is None:
        return None
    tokens = parse_tokens(name, value)
    return tokens if name == "max_encoder_tokens" else _at_least_one(name, tokens)


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"[plan_memory] {name} must be an int, got {value!r}")
    size = operator.index(value)
    if not 1 <= size <= _MAX_INT32:
        raise ValueError(f"[plan_memory] {name} must be in [1, {_MAX_INT32}], got {size}")
    return size


def _utilization(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"[plan_memory] hbm_utilization must be a float, got {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"[plan_memory] hbm_utilization must be in (0, 1], got {value}")
    return float(value)
