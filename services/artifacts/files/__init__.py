"""The Files API: what clients upload, list, read back and delete."""
