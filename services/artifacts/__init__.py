"""Artifacts: the files that responses produced, kept once, listed and served."""
