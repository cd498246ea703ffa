"""Events as vLLM writes them: MessagePack of its structs, with its names.

The names, the order of the fields and which of them may be missing are those of vLLM 0.33
(`vllm/distributed/kv_events.py`), as is the older form in which each event is an array.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from pagedkv import (
    CacheManager,
    CacheSpec,
    ChunkedLocalAttentionSpec,
    CrossAttentionSpec,
    FullAttentionSpec,
    MambaSpec,
    PagesCleared,
    PagesRemoved,
    PagesStored,
    SinkFullAttentionSpec,
    SlidingWindowSpec,
)

HashForm = Literal["int", "bytes"]
WireFormat = Literal["map", "array"]

PageEvent = PagesStored | PagesRemoved | PagesCleared
ExtraKeys = tuple[tuple[object, ...], ...]


class _Event(msgspec.Struct, tag=True, omit_defaults=True, gc=False):
    pass


class BlockStored(_Event):
    """Pages that can be found from now on: those of one request, one after the other."""

    block_hashes: list[int] | list[bytes]
    parent_block_hash: int | bytes | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[ExtraKeys | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None


class BlockRemoved(_Event):
    """Pages that cannot be found any more."""

    block_hashes: list[int] | list[bytes]
    medium: str | None
    group_idx: int | None = None


class AllBlocksCleared(_Event):
    """Nothing can be found any more."""


class _StoredArray(BlockStored, array_like=True, tag="BlockStored"):
    pass


class _RemovedArray(BlockRemoved, array_like=True, tag="BlockRemoved"):
    pass


class _ClearedArray(AllBlocksCleared, array_like=True, tag="AllBlocksCleared"):
    pass


WireEvent = BlockStored | BlockRemoved | AllBlocksCleared


class KVEventBatch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """Events that were published together. An array on the wire: ``[ts, events, rank]``."""

    ts: float
    events: Sequence[WireEvent]
    data_parallel_rank: int | None = None


def kind_of(spec: CacheSpec) -> tuple[str, int | None]:
    """vLLM's word for what layers of ``spec`` keep, and their sliding window if they have one."""
    is_mla = bool(getattr(spec, "use_mla", False))
    match spec:
        case SlidingWindowSpec():
            return "sliding_window_mla" if is_mla else "sliding_window", spec.sliding_window
        case SinkFullAttentionSpec():
            return "sink_full_attention", None
        case ChunkedLocalAttentionSpec():
            return "chunked_local_attention", None
        case CrossAttentionSpec():
            return "cross_attention", None
        case MambaSpec():
            return "mamba", None
        case FullAttentionSpec():
            return "mla_attention" if is_mla else "full_attention", None
    return "unknown", None


def digests_of(event: PagesStored | PagesRemoved) -> list[bytes]:
    """The digests of an event's pages, 32 or 16 bytes each."""
    digests = event.digests
    raw, width = digests.tobytes(), digests.shape[1]
    return [raw[i : i + width] for i in range(0, len(raw), width)]


class EventEncoder:
    """Turns runs of pages into vLLM's events, and those into bytes.

    Args:
      manager: Whose pages: its groups and their page sizes.
      hashes: "int", the low 64 bits of a digest as a big-endian number, which is what vLLM sends by
        default (``VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES``), or "bytes", all of it.
      wire: "map", each event a map with its tag as ``type`` (vLLM today), or "array", the tag and then
        all fields by position (vLLM before).
      medium: Where the pages are: vLLM's word for the memory of the device is "GPU".

    Raises:
      ValueError: For another word for ``hashes`` or ``wire``.
    """

    def __init__(
        self,
        manager: CacheManager,
        *,
        hashes: HashForm = "int",
        wire: WireFormat = "map",
        medium: str | None = "GPU",
    ) -> None:
        if hashes not in ("int", "bytes"):
            raise ValueError(f"[EventEncoder] hashes must be int or bytes, got {hashes}")
        if wire not in ("map", "array"):
            raise ValueError(f"[EventEncoder] wire must be map or array, got {wire}")
        self._kinds = [kind_of(spec) for spec in manager.kv_cache_specs]
        self._page_sizes = manager.page_sizes
        self._is_int = hashes == "int"
        self._medium = medium
        is_map = wire == "map"
        self._stored = BlockStored if is_map else _StoredArray
        self._removed = BlockRemoved if is_map else _RemovedArray
        self._cleared = AllBlocksCleared if is_map else _ClearedArray
        self._encoder = msgspec.msgpack.Encoder()

    def stored(
        self,
        group: int,
        digests: Sequence[bytes],
        parent: bytes | None,
        tokens: Any,
        lora_name: str | None,
        extra_keys: list[ExtraKeys | None] | None,
    ) -> WireEvent:
        """An event of pages of ``group``.

        Args:
          tokens: int32 ``[pages * page_size]``, or none if nobody knows them.
          extra_keys: One entry a page, or None if no page has any.
        """
        kind, window = self._kinds[group]
        return self._stored(
            block_hashes=self._hashes(digests),
            parent_block_hash=None if parent is None else self._hashes([parent])[0],
            token_ids=tokens.tolist(),
            block_size=self._page_sizes[group],
            lora_id=None,
            medium=self._medium,
            lora_name=lora_name,
            extra_keys=extra_keys,
            group_idx=group,
            kv_cache_spec_kind=kind,
            kv_cache_spec_sliding_window=window,
        )

    def event(self, event: PageEvent) -> WireEvent:
        """The event of vLLM that says the same as one of `CacheManager.take_events`."""
        match event:
            case PagesStored():
                return self.stored(
                    event.group,
                    digests_of(event),
                    event.parent_digest,
                    event.tokens,
                    event.lora_name,
                    event.extra_keys,
                )
            case PagesRemoved():
                return self._removed(
                    block_hashes=self._hashes(digests_of(event)),
                    medium=self._medium,
                    group_idx=event.group,
                )
            case PagesCleared():
                return self.cleared()
        raise TypeError(f"[EventEncoder.event] not an event: {event!r}")

    def cleared(self) -> WireEvent:
        return self._cleared()

    def encode(self, ts: float, events: Iterable[WireEvent], rank: int | None) -> bytes:
        """A batch as MessagePack.

        Args:
          ts: Seconds since the epoch.
          events: In the order in which they happened.
          rank: The data-parallel rank whose pages they are about.
        """
        return self._encoder.encode(KVEventBatch(ts, list(events), rank))

    def _hashes(self, digests: Sequence[bytes]) -> Any:
        if not self._is_int:
            return list(digests)
        low = b"".join(digest[-8:] for digest in digests)
        return np.frombuffer(low, ">u8").tolist()
