"""Intake's HTTP edge: the create call as bare ASGI for speed, everything else as routes."""
