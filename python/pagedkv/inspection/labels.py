"""Names of requests, made safe to show."""

MAX_LABEL = 28


def shown(request_id: str, limit: int = MAX_LABEL) -> str:
    """At most ``limit`` printable characters: others could command a terminal or break XML."""
    safe = "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in request_id
    )
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


def joined(request_ids: tuple[str, ...], most: int = 3) -> str:
    """Such as ``"a, b, c and 5 more"``."""
    names = ", ".join(shown(request_id, 16) for request_id in request_ids[:most])
    rest = len(request_ids) - most
    return f"{names} and {rest:,} more" if rest > 0 else names
