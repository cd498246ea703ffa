"""Cache groups by the names that the command line has for them."""

from collections.abc import Sequence

from pagedkv import (
    CacheGroupSpec,
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    SlidingWindowSpec,
)


def cache_groups(names: Sequence[str], page_size: int) -> list[CacheGroupSpec]:
    """Groups of one layer each, for replays: what a page weighs decides nothing there.

    Args:
      names: ``"full"``, ``"window:N"`` or ``"chunk:N"``, N in tokens; at least one.
      page_size: Tokens of a page.

    Raises:
      ValueError: If a name is none of these.
    """
    if not names:
        raise ValueError("[cache_groups] there must be at least one group")
    return [CacheGroupSpec(_spec(name, (page_size, 1, 8, "bfloat16"))) for name in names]


def _spec(
    name: str, sizes: tuple[int, int, int, str]
) -> FullAttentionSpec | SlidingWindowSpec | ChunkedLocalAttentionSpec:
    kind, _, number = name.partition(":")
    if name == "full":
        return FullAttentionSpec(*sizes)
    if number.isdecimal() and int(number) > 0:
        if kind == "window":
            return SlidingWindowSpec(*sizes, sliding_window=int(number))
        if kind == "chunk":
            return ChunkedLocalAttentionSpec(*sizes, attention_chunk_size=int(number))
    raise ValueError(
        f"[cache_groups] a group is 'full', 'window:N' or 'chunk:N' with N >= 1, got {name!r}"
    )
