"""Signed webhooks that tell of the end of responses."""
