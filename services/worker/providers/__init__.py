"""How the worker speaks to upstream models."""
