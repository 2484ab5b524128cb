"""Live and repeated streams: whoever follows a response, wherever its events are."""
