"""What the tests of the paged cache share."""

import jax
import jax.numpy as jnp
import pytest
from pagedkv import PagedAttentionCacheMetaData
from pagedkv.cache import PartitionAxis


def make_metadata(**changes):
    fields = {
        "partition_axis": PartitionAxis(),
        "dtype": jnp.float32,
        "batch_size": 3,
        "num_hidden_layers": 2,
        "num_pages_per_layer": 9,
        "num_pages_per_sequence": 4,
        "max_sequences": 16,
        "page_size": 4,
        "num_kv_heads": 4,
        "kv_head_dim_size": 8,
        "hbm_utilization": 0.5,
        "hbm_bytes": 0,
    }
    return PagedAttentionCacheMetaData(**{**fields, **changes})


@pytest.fixture(name="make_metadata")
def make_metadata_fixture():
    return make_metadata


@pytest.fixture
def metadata():
    return make_metadata()


@pytest.fixture
def one_device():
    return jax.make_mesh((1,), ("tp",), devices=jax.devices()[:1])
