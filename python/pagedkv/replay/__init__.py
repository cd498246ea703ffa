"""Real request traces, replayed on a manager without a model: what a pool of which size would hit."""

from .groups import cache_groups
from .options import ReplayOptions
from .run import ReplayResult, Sample, replay
from .trace import TraceError, TraceRequest, read_trace

__all__ = [
    "ReplayOptions",
    "ReplayResult",
    "Sample",
    "TraceError",
    "TraceRequest",
    "cache_groups",
    "read_trace",
    "replay",
]
