"""What Antiphon costs next to the bare upstream: `make bench`, or `python -m tests.load --help`."""
