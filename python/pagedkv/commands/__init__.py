"""The commands of `pagedkv`, one file each."""
