"""A small serving engine on pagedkv: how to embed it, and what `pagedkv generate` runs."""
