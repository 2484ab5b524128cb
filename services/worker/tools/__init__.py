"""Tools that run outside of the provider, and which request gets which."""
