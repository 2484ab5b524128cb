"""Idempotency keys: the same request again gets the same response."""
