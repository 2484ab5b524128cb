"""Counting tokens and compacting: what is asked of a worker beside responses."""
