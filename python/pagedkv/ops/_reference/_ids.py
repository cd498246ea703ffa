"""What the references do with ids: as the handlers, none is trusted."""

import jax
import jax.numpy as jnp


def num_layers(pages: jax.Array, layered: bool) -> int:
    return pages.shape[0] if layered else 1


def in_range(ids: jax.Array, size: int) -> jax.Array:
    return (ids >= 0) & (ids < size)


def num_dropped(ids: jax.Array, valid: jax.Array) -> jax.Array:
    """Ids that are not valid, padding aside: int32 ``[]``."""
    return jnp.sum(~valid & (ids != -1), dtype=jnp.int32)
