"""What is in the prefix cache, told to routers in vLLM's wire format over ZeroMQ (docs/events.md).

`KVEventPublisher` takes the events of a `CacheManager` and publishes them. Needs msgspec and pyzmq:
``pip install pagedkv[events]``.
"""

try:
    import msgspec as _msgspec
    import zmq as _zmq
except ImportError as error:
    raise ImportError(
        "[pagedkv.events] needs msgspec and pyzmq: pip install 'pagedkv[events]'"
    ) from error

from .publisher import KVEventPublisher as KVEventPublisher
from .wire import AllBlocksCleared as AllBlocksCleared
from .wire import BlockRemoved as BlockRemoved
from .wire import BlockStored as BlockStored
from .wire import EventEncoder as EventEncoder
from .wire import HashForm as HashForm
from .wire import KVEventBatch as KVEventBatch
from .wire import WireFormat as WireFormat

del _msgspec, _zmq
