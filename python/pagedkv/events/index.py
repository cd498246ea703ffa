"""The content of one shard, as its events say: what a new subscriber has to know."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagedkv import PagesCleared, PagesRemoved, PagesStored

from .wire import EventEncoder, ExtraKeys, PageEvent, WireEvent, digests_of

Key = tuple[int, bytes]  # group and digest


class _Page(NamedTuple):
    parent: bytes | None
    tokens: bytes  # int32; none if nobody knows them
    lora_name: str | None
    extra_keys: ExtraKeys | None


class PageIndex:
    """Follows the events of a shard. Some 400 bytes a page of 16 tokens."""

    def __init__(self) -> None:
        self._pages: dict[Key, _Page] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def apply(self, event: PageEvent) -> None:
        match event:
            case PagesStored():
                self._store(event)
            case PagesRemoved():
                for digest in digests_of(event):
                    del self._pages[event.group, digest]
            case PagesCleared():
                self._pages.clear()

    def _store(self, event: PagesStored) -> None:
        tokens, size = event.tokens.tobytes(), 4 * event.page_size
        parent, lora_name = event.parent_digest, event.lora_name
        extra_keys = event.extra_keys or [None] * event.num_pages
        for i, (digest, keys) in enumerate(zip(digests_of(event), extra_keys, strict=True)):
            page = _Page(parent, tokens[i * size : (i + 1) * size], lora_name, keys)
            self._pages[event.group, digest] = page
            parent = digest

    def events(self, encoder: EventEncoder) -> Iterator[WireEvent]:
        """Events that store all pages: those before a page come before it."""
        children = defaultdict[Key, list[Key]](list)
        starts = []
        for key, page in self._pages.items():
            parent = None if page.parent is None else (key[0], page.parent)
            if parent in self._pages:
                children[parent].append(key)
            else:
                starts.append(key)
        starts.reverse()  # taken from the end: the oldest first
        while starts:
            run = [starts.pop()]
            while True:
                first, *others = children.get(run[-1], [None])
                starts += filter(None, reversed(others))
                if first is None:
                    break
                # Pages of which nobody knows the tokens are told of one by one, as they came.
                if not (self._pages[run[-1]].tokens and self._pages[first].tokens):
                    starts.append(first)
                    break
                run.append(first)
            yield self._event(run, encoder)

    def _event(self, run: list[Key], encoder: EventEncoder) -> WireEvent:
        pages = [self._pages[key] for key in run]
        extra_keys = [page.extra_keys for page in pages]
        return encoder.stored(
            run[0][0],
            [digest for _, digest in run],
            pages[0].parent,
            np.frombuffer(b"".join(page.tokens for page in pages), np.int32),
            pages[0].lora_name,
            extra_keys if any(extra_keys) else None,
        )
