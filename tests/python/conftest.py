"""What all Python tests share."""

import os

from hypothesis import settings

# Eight CPU devices for the sharding tests. JAX reads the flag once, when it is imported.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

# The default suite draws the same examples on every run, so that a red run is about the change at
# hand. `--hypothesis-profile=fuzz`, as `make fuzz` says, draws new ones, and many.
settings.register_profile(
    "default", derandomize=True, max_examples=30, stateful_step_count=40, deadline=None
)
settings.register_profile("fuzz", max_examples=5000, stateful_step_count=80, deadline=None)
settings.load_profile("default")
