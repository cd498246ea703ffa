"""TPUs that are not there: libtpu compiles for them on any machine. `make tpu` fetches it."""

import os

import pytest

# Read when libtpu is loaded.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-4"
os.environ["TPU_MIN_LOG_LEVEL"] = os.environ["TPU_STDERR_LOG_LEVEL"] = "3"


@pytest.fixture(scope="session", params=["v5e:2x2", "v6e:2x2"])
def device(request):
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=request.param).devices[0]
