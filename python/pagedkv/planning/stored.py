"""Bytes that a page of one layer takes on a device, as it is really stored."""

import math
from dataclasses import dataclass
from typing import Literal

from pagedkv._core import AttentionSpec, MambaSpec
from pagedkv.layouts import KVLayout
from pagedkv.specs.layer_specs import Spec

SCALES = ("token", "page", "static", "none")
SCALED_DTYPES = ("int8", "int4", "float8_e4m3fn", "float8_e5m2")
_SCALE_BYTES = 4  # float32


@dataclass(frozen=True)
class PageBytes:
    """Bytes of one page of one layer.

    Attributes:
      data: K and V, or the state.
      scales: Of quantised K and V.
      padding: Zeros that the layout wants, and their scales.
    """

    data: int
    scales: int = 0
    padding: int = 0

    @property
    def total(self) -> int:
        return self.data + self.scales + self.padding


@dataclass(frozen=True)
class Storage:
    """How K and V lie in the arrays.

    Attributes:
      layout: Of layers with heads.
      latent_layout: Of latent layers (MLA).
      scales: What shares a scale: "token", "page", "static" or "none".
    """

    layout: KVLayout
    latent_layout: KVLayout
    scales: str

    @classmethod
    def of(cls, layout: KVLayout | str, scales: str | None, dtype: str) -> "Storage":
        """Reads a layout, which says how latent layers lie as well: padded if it pads.

        Raises:
          ValueError: If a name is unknown, or ``dtype`` has no scales.
        """
        if not isinstance(layout, KVLayout):
            names = {member.name: member for member in KVLayout}
            if str(layout).upper() not in names:
                raise ValueError(
                    f"[plan_memory] layout must be one of {', '.join(names)}, got {layout!r}"
                )
            layout = names[str(layout).upper()]
        can_scale = dtype in SCALED_DTYPES
        if scales is None:
            scales = "token" if can_scale else "none"
        if scales not in SCALES:
            raise ValueError(
                f"[plan_memory] scales must be one of {', '.join(SCALES)}, got {scales!r}"
            )
        if scales != "none" and not can_scale:
            raise ValueError(
                f"[plan_memory] {dtype} has no scales: only {', '.join(SCALED_DTYPES)} have"
            )
        if layout.is_latent:
            return cls(KVLayout.NHD, layout, scales)
        return cls(layout, KVLayout.LATENT_PACKED if layout.pads else KVLayout.LATENT, scales)

    def layout_of(self, spec: AttentionSpec) -> KVLayout:
        return self.latent_layout if spec.use_mla else self.layout

    def page_bytes(self, spec: Spec, page_size: int) -> PageBytes:
        """Bytes of a page of ``page_size`` tokens; of a state, whatever ``page_size`` is.

        Static scales are of the whole pool, and count in no page.

        Raises:
          ValueError: If the layout cannot hold what the spec describes.
        """
        if isinstance(spec, MambaSpec):
            return PageBytes(spec.real_page_size_bytes)
        data = spec.real_page_size_bytes * page_size // spec.page_size
        stored, stored_scales = self._stored(spec, page_size)
        scales = self._num_scales(spec, page_size) * _SCALE_BYTES
        return PageBytes(data, scales, stored - data + stored_scales - scales)

    def _num_scales(self, spec: AttentionSpec, page_size: int) -> int:
        """Scales of K and of V."""
        per_head = {"token": page_size, "page": 1}.get(self.scales, 0)
        return per_head * spec.num_kv_heads * (1 if spec.use_mla else 2)

    def _stored(self, spec: AttentionSpec, page_size: int) -> tuple[int, int]:
        """Bytes of the pools of one page, and of their scales."""
        layout = self.layout_of(spec)
        width = spec.head_size + spec.head_size_v
        bits = spec.real_page_size_bytes * 8 // (spec.page_size * spec.num_kv_heads * width)
        shapes = layout.pool_shapes(
            num_pages=1,
            page_size=page_size,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_size,
            dtype_bits=bits,
            value_dim=None if spec.use_mla else spec.head_size_v,
        )
        stored = sum(math.prod(shape) for shape in shapes) * bits // 8
        if self.scales not in ("token", "page"):
            return stored, 0
        from pagedkv.ops._quantized import scale_shape  # which imports JAX

        granularity: Literal["token", "page"] = "token" if self.scales == "token" else "page"
        scales = sum(math.prod(scale_shape(layout, shape, granularity)) for shape in shapes)
        return stored, scales * _SCALE_BYTES
