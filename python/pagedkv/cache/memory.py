"""How much memory the pages of a cache may take."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

# Where a container says how much memory it may have, in version 2 and 1 of control groups.
_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def usable_bytes(mesh: Any, utilization: float) -> int:
    """Bytes that pages may take on all devices of ``mesh`` together.

    EasyDeL 0.1.3's formula: ``int(limit * utilization) - in_use`` of one device, times all devices.
    Devices that report no memory, those of the CPU backend, are counted another way: all of one
    process share one memory, so it is the limit of the process, times all processes.

    Args:
      mesh: A `jax.sharding.Mesh`.
      utilization: In ``(0, 1)``.

    Raises:
      ValueError: If a device reports its memory, but no limit.
    """
    local = mesh.local_devices
    device = local[0] if len(local) > 0 else jax.local_devices()[0]
    stats = device.memory_stats()
    if stats is None:
        num_processes = len({device.process_index for device in mesh.devices.flat})
        return (int(process_limit() * utilization) - process_in_use()) * num_processes
    usable = int(_device_limit(stats) * utilization) - int(stats["bytes_in_use"])
    return usable * int(mesh.devices.size)


def process_limit() -> int:
    """Bytes of memory that this process can have: the machine's, or its container's if less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [path.read_text().strip() for path in _CONTAINER_LIMITS if path.is_file()]
    return min([machine, *(int(limit) for limit in limits if limit.isdecimal())])


def process_in_use() -> int:
    """Bytes of memory that this process has resident."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return resident_pages * os.sysconf("SC_PAGE_SIZE")


def _device_limit(stats: Mapping[str, int]) -> int:
    for name in ("bytes_reservable_limit", "bytes_limit"):
        if name in stats:
            return stats[name]
    raise ValueError(
        "[PagedAttentionCacheMetaData.create] the device reports no limit of its memory: give "
        "hbm_bytes"
    )
