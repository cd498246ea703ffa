"""Tests that run the kernels on a GPU. `make test-gpu` runs them, and nothing else collects them.

Without a GPU they fail: whoever asks for them wants to know.
"""

import os

# Short programs become command buffers too, which are recorded once and replayed. JAX reads the
# flag once, when it is imported.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_gpu_graph_min_graph_size=1"
    + " --xla_gpu_enable_command_buffer=FUSION,CUSTOM_CALL"
)

import jax
import pytest


@pytest.fixture(scope="session")
def gpu():
    return jax.devices("cuda")[0]
