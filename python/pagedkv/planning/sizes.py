"""Sizes as people write and read them: ``80GiB``, ``128k`` tokens."""

import operator
import re
from fractions import Fraction

_UNITS_OF_BYTES = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000 ** (i + 1) for i, letter in enumerate("kmgt")},
    **{f"{letter}ib": 1024 ** (i + 1) for i, letter in enumerate("kmgt")},
}
_UNITS_OF_TOKENS = {"": 1, "k": 1024, "m": 1024**2}
_NUMBER_AND_UNIT = re.compile(r"([+-]?\d{1,30}(?:\.\d{1,30})?) ?([a-z]*)", re.ASCII)


def parse_bytes(name: str, value: int | str) -> int:
    """Bytes of a number, or of a text such as ``"80GiB"`` (1024 ** 3) or ``"80GB"`` (1000 ** 3).

    Raises:
      TypeError: If ``value`` is neither an int nor a str.
      ValueError: If it is no such text, or below 0.
    """
    return _parse(
        name, value, _UNITS_OF_BYTES, "KiB, MiB, GiB, TiB (of 1024) or kB, MB, GB, TB (of 1000)"
    )


def parse_tokens(name: str, value: int | str) -> int:
    """Tokens of a number, or of a text such as ``"128k"``: k is 1024, and m 1024 ** 2.

    Raises:
      TypeError: If ``value`` is neither an int nor a str.
      ValueError: If it is no such text, or below 0.
    """
    return _parse(name, value, _UNITS_OF_TOKENS, "k (1024) or m (1024 * 1024)")


def ceil_div(a: int, b: int) -> int:
    """``a / b``, rounded up."""
    return -(-a // b)


def format_bytes(num_bytes: int) -> str:
    """Such as ``"1.25 MiB"``: in the largest unit of which there is at least one."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if num_bytes >= 1024**power:
            return f"{num_bytes / 1024**power:,.2f} {unit}"
    return f"{num_bytes} B"


def _parse(name: str, value: int | str, units: dict[str, int], known: str) -> int:
    if isinstance(value, str):
        match = _NUMBER_AND_UNIT.fullmatch(value.strip().lower())
        if match is None or match[2] not in units:
            raise ValueError(
                f"[plan_memory] {name} {value!r} is no size: write a number, alone or with one of "
                f"{known}"
            )
        size = int(Fraction(match[1]) * units[match[2]])
    elif isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"[plan_memory] {name} must be an int or a str, got {value!r}")
    else:
        size = operator.index(value)
    if size < 0:
        raise ValueError(f"[plan_memory] {name} must be >= 0, got {value}")
    return size
