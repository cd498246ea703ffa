"""Paged KV-cache engine for JAX serving stacks."""
