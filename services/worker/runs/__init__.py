"""One response from its first attempt to its end."""
