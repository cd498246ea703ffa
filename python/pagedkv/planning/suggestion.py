"""What would fit, where what was asked for does not."""

from collections.abc import Callable
from dataclasses import dataclass

PAGE_SIZES = (8, 16, 32, 64, 128, 256)

Fits = Callable[[int, int], bool]
"""Whether a longest request fits, given page size and length."""


@dataclass(frozen=True)
class Suggestion:
    """Each of these alone makes a longest request fit.

    Attributes:
      max_model_len: Tokens of the longest request that fits, with ``page_size``. None: not even one
        page does.
      page_size: Tokens of a page: those asked for, unless others are needed.
      memory: Bytes of a device that what was asked for needs.
    """

    max_model_len: int | None
    page_size: int
    memory: int


class DoesNotFitError(ValueError):
    """One longest request needs more memory than there is.

    Attributes:
      reason: What it needs, and what there is.
      suggestion: What would fit.
    """

    def __init__(self, reason: str, suggestion: Suggestion) -> None:
        self.reason = reason
        self.suggestion = suggestion
        length = suggestion.max_model_len
        fits = [f"memory={suggestion.memory}"]
        if length is not None:
            fits.insert(0, f"max_model_len={length} with page_size={suggestion.page_size}")
        super().__init__(f"{reason}: {' or '.join(fits)} would fit")


def longest_that_fits(fits: Fits, page_size: int, max_model_len: int) -> tuple[int | None, int]:
    """The longest request of at most ``max_model_len`` tokens that fits, and in which page size.

    The page size asked for, unless another one lets the length fit that was asked for, or unless
    none at all fits in it. Lengths are whole pages, but for ``max_model_len`` itself and below a page.
    """
    sizes = sorted({*PAGE_SIZES, page_size}, key=lambda size: abs(size - page_size))
    for size in sizes:
        if fits(size, max_model_len):
            return max_model_len, size
    for size in sizes:
        length = _longest(fits, size, max_model_len)
        if length:
            return (length // size * size or length), size
    return None, page_size


def _longest(fits: Fits, page_size: int, limit: int) -> int:
    """The largest length below ``limit`` that fits, or 0; if one fits, so do all below it."""
    low, high = 0, limit  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(page_size, middle) else (low, middle)
    return low
