"""Request traces in Mooncake's format: one JSON object a line, no text, only which content is equal.

    {"timestamp": 0, "input_length": 1300, "output_length": 52, "hash_ids": [46, 47, 48]}

``timestamp`` is in ms. ``hash_ids`` names the prompt in blocks of 512 tokens, the last of which may
be partial: equal ids stand for equal tokens after an equal prefix. The format is that of the traces
of "Mooncake: Trading More Storage for Less Computation" (FAST'25).
"""

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BLOCK_SIZE = 512  # of Mooncake
_MAX_LENGTH = 2**31 - 1
_MAX_ID = 2**62
_LOW_BITS = 2**31 - 1


class TraceError(ValueError):
    """A trace that cannot be read: says in which line, and why."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """A line of a trace."""

    timestamp: int  # ms since the trace began
    input_length: int
    output_length: int
    hash_ids: NDArray[np.int64]
    block_size: int

    def tokens(self) -> NDArray[np.int32]:
        """A prompt, int32 ``[input_length]``: each block is a pure function of its id, and no other's.

        Tokens are at least 0.
        """
        low, high = self.hash_ids & _LOW_BITS, self.hash_ids >> 31
        first: NDArray[np.uint32] = (low * self.block_size & _LOW_BITS).astype(np.uint32)
        words = np.add.outer(first, np.arange(self.block_size, dtype=np.uint32))
        words[:, 0], words[:, 1] = low, high  # all bits of the id; the product may have lost some
        words &= np.uint32(_LOW_BITS)
        return words.view(np.int32).ravel()[: self.input_length]


def read_trace(
    path: str | Path,
    *,
    block_size: int = BLOCK_SIZE,
    on_bytes: Callable[[int], object] = lambda position: None,
) -> Iterator[TraceRequest]:
    """Reads a trace line by line, so that its length does not matter. ``.gz`` is unpacked.

    Args:
      path: The file; a pipe will do.
      block_size: Tokens of a hash id, where a line does not say so itself as ``block_size``.
      on_bytes: Is told how many bytes of the file have been read, now and then.

    Raises:
      ValueError: If ``block_size`` is below 2.
      OSError: If the file cannot be read.
      TraceError: If a line is no request. Empty lines are skipped.
    """
    if block_size < 2:
        raise ValueError(f"[read_trace] block_size must be at least 2, got {block_size}")
    path = Path(path)
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        # Of a pipe nobody knows how much is left.
        position = raw.tell if raw.seekable() else lambda: 0
        lines = enumerate(file, 1)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                break
            except (gzip.BadGzipFile, EOFError) as error:
                raise TraceError(f"[read_trace] {path}: {error}") from None
            on_bytes(position())
            if line.strip():
                yield _request_of(line, f"[read_trace] {path}, line {number}:", block_size)


def _request_of(line: bytes, where: str, block_size: int) -> TraceRequest:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise TraceError(f"{where} no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise TraceError(f"{where} must be an object, got {type(fields).__name__}")

    def number(name: str, default: int | None = None, least: int = 0) -> int:
        value = fields.get(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= _MAX_LENGTH:
            raise TraceError(f"{where} {name} must be an integer >= {least}, got {value!r:.40}")
        return value

    block_size = number("block_size", block_size, least=2)
    length = number("input_length", least=1)
    ids = fields.get("hash_ids")
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < _MAX_ID for i in ids):
        raise TraceError(f"{where} hash_ids must be a list of integers in [0, 2^62)")
    if len(ids) != -(-length // block_size):
        raise TraceError(
            f"{where} {length} tokens are {-(-length // block_size)} blocks of {block_size}, "
            f"got {len(ids)} hash_ids"
        )
    return TraceRequest(
        timestamp=number("timestamp", 0),
        input_length=length,
        output_length=number("output_length", 1),
        hash_ids=np.array(ids, np.int64),
        block_size=block_size,
    )
