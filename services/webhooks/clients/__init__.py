"""Adapters to the outside: HTTP to the endpoints, names to addresses."""
