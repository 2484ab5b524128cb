"""How the worker is put together, an area per module; only `main` imports from here."""
