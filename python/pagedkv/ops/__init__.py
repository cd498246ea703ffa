"""JAX operations on a paged KV cache."""
