"""What the tests of the paged cache share."""

import jax
import pytest
from seed_cache_golden import make_metadata


@pytest.fixture
def metadata():
    return make_metadata()


@pytest.fixture
def one_device():
    return jax.make_mesh((1,), ("tp",), devices=jax.devices()[:1])
