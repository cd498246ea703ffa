"""What an engine did, and how long it took."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


class Stopwatch:
    """Adds up the seconds spent inside its ``with`` blocks."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0
        self._clock = clock

    def __enter__(self) -> None:
        self._start = self._clock()

    def __exit__(self, *error: object) -> None:
        self.seconds += self._clock() - self._start


@dataclass
class EngineStats:
    """Counts since the engine was made."""

    num_steps: int = 0
    num_tokens_prefilled: int = 0
    num_tokens_reused: int = 0  # found in the prefix cache instead
    num_tokens_decoded: int = 0
    num_tokens_in_decode: int = 0  # in the steps that `in_decode` times
    num_preemptions: int = 0
    peak_pages: int = 0
    in_prefill: Stopwatch = field(default_factory=Stopwatch)
    in_decode: Stopwatch = field(default_factory=Stopwatch)  # steps with no chunk of a prompt
    in_pagedkv: Stopwatch = field(default_factory=Stopwatch)  # manager and requests

    @property
    def decode_rate(self) -> float:
        """Tokens a second, in steps that only decode."""
        return self.num_tokens_in_decode / max(self.in_decode.seconds, 1e-9)
