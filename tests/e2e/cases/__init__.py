"""Hundreds of requests through the whole system, each checked by the client's own models."""
