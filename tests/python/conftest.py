"""Eight CPU devices for the sharding tests. JAX reads the flag once, when it is imported."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
