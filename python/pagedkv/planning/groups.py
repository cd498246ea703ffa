"""Which layers share page ids, and the bytes of a page that any of them can take.

One pool serves all groups, so a page id has the same bytes in each: a page that a window gives back is
then memory for any group. The rules are those of vLLM's hybrid KV-cache manager: pages of one size
a layer, as many layers in each group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pagedkv._core import (
    AttentionSpec,
    CacheGroupSpec,
    ChunkedLocalAttentionSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from pagedkv.planning.stored import PageBytes, Storage
from pagedkv.specs.layer_specs import Spec

# Where the most frequent kind of layer has less than this times the layers of the rarest, its layers
# stay together, and others' groups are padded. vLLM's number.
_CLOSE = 1.5

_Rule = tuple[str, int | None]


@dataclass(frozen=True)
class DeviceLayer:
    """What a device keeps of one layer, and all devices together."""

    name: str
    spec: Spec
    whole: Spec


@dataclass(frozen=True)
class PlannedGroup:
    """Layers that share one page table.

    Attributes:
      layers: Their names.
      spec: What a device keeps of the first, in pages of ``page_size`` tokens.
      bytes_of_layers: What a device keeps of each in a page.
      whole_bytes: K, V, states and scales of a page of all layers, on no matter which device.
      page_bytes: Bytes of a page id on a device, the same in every group.
    """

    layers: tuple[str, ...]
    spec: Spec
    bytes_of_layers: tuple[PageBytes, ...]
    whole_bytes: int
    page_bytes: int

    @property
    def kind(self) -> str:
        """Such as "sliding_window"; the names are vLLM's."""
        return self.spec.kind

    @property
    def page_size(self) -> int:
        """Tokens of a page."""
        return self.spec.page_size

    @property
    def has_tokens(self) -> bool:
        """Whether a page holds tokens, not a state."""
        return isinstance(self.spec, AttentionSpec)

    @property
    def window(self) -> int | None:
        """Tokens of the window, or of a chunk."""
        return _rule(self.spec)[1]

    @property
    def stored_bytes(self) -> int:
        """Bytes of a page that the layers take."""
        return sum(layer.total for layer in self.bytes_of_layers)

    @property
    def bytes_per_token(self) -> float:
        """Bytes that a token takes in its page, with scales and padding; 0 of a state."""
        return self.stored_bytes / self.page_size if self.has_tokens else 0.0

    @property
    def cache_group(self) -> CacheGroupSpec:
        """For a `CacheManager`."""
        return CacheGroupSpec(self.spec, list(self.layers))


def make_groups(layers: Sequence[DeviceLayer], storage: Storage) -> tuple[PlannedGroup, ...]:
    """Groups the layers of a model.

    Layers that are all kept by one rule share all pages, and each takes its own bytes of them.
    """
    if len({_rule(layer.spec) for layer in layers}) == 1:
        pages = [storage.page_bytes(layer.spec, layer.spec.page_size) for layer in layers]
        page_bytes = sum(page.total for page in pages)
        return (_group(layers, layers[0].spec.page_size, storage, page_bytes),)

    layer_bytes = _common_page_bytes(layers, storage)
    alike: dict[tuple[_Rule, int], list[DeviceLayer]] = {}
    for layer in layers:
        page_size = _page_size_in(layer.spec, storage, layer_bytes)
        alike.setdefault((_rule(layer.spec), page_size), []).append(layer)
    num_layers = layers_per_group([len(members) for members in alike.values()])
    groups = []
    for (_, page_size), members in alike.items():
        num_groups = -(-len(members) // num_layers)
        groups += [
            _group(members[i::num_groups], page_size, storage, layer_bytes * num_layers)
            for i in range(num_groups)
        ]
    return tuple(groups)


def layers_per_group(counts: Sequence[int]) -> int:
    """Layers that each group has room for, where there are ``counts`` of each kind."""
    fewest, most = min(counts), max(counts)
    return most if most < _CLOSE * fewest else fewest


def _group(
    layers: Sequence[DeviceLayer], page_size: int, storage: Storage, page_bytes: int
) -> PlannedGroup:
    whole = [storage.page_bytes(layer.whole, page_size) for layer in layers]
    return PlannedGroup(
        layers=tuple(layer.name for layer in layers),
        spec=layers[0].spec.copy_with_new_page_size(page_size),
        bytes_of_layers=tuple(storage.page_bytes(layer.spec, page_size) for layer in layers),
        whole_bytes=sum(page.data + page.scales for page in whole),
        page_bytes=page_bytes,
    )


def _rule(spec: Spec) -> _Rule:
    """Equal for layers that need the same pages of a request."""
    if isinstance(spec, SlidingWindowSpec):
        return "sliding", spec.sliding_window
    if isinstance(spec, ChunkedLocalAttentionSpec):
        return "chunked", spec.attention_chunk_size
    if isinstance(spec, AttentionSpec):
        return ("full" if spec.kind == "mla_attention" else spec.kind), None
    return "state", None


def _common_page_bytes(layers: Sequence[DeviceLayer], storage: Storage) -> int:
    """Bytes of a page of one layer: of the largest attention, with tokens enough to hold a state."""
    states = [layer.spec for layer in layers if isinstance(layer.spec, MambaSpec)]
    largest_state = max((storage.page_bytes(spec, 1).total for spec in states), default=0)
    attention = [layer.spec for layer in layers if isinstance(layer.spec, AttentionSpec)]
    if not attention:
        return largest_state
    largest = max(attention, key=lambda spec: storage.page_bytes(spec, spec.page_size).total)
    page_size = largest.page_size
    # Pages grow in proportion, but for scales of whole pages, which are few.
    page_size *= max(1, largest_state // storage.page_bytes(largest, page_size).total)
    while storage.page_bytes(largest, page_size).total < largest_state:
        page_size += largest.page_size
    return storage.page_bytes(largest, page_size).total


def _page_size_in(spec: Spec, storage: Storage, num_bytes: int) -> int:
    """Most tokens of a page that takes at most ``num_bytes``, in steps of the page size asked for."""
    if isinstance(spec, MambaSpec):
        return spec.page_size
    page_size = spec.page_size * max(1, num_bytes // storage.page_bytes(spec, spec.page_size).total)
    while storage.page_bytes(spec, page_size + spec.page_size).total <= num_bytes:
        page_size += spec.page_size
    return page_size
