"""Programs that use Antiphon through the clients that people use, and what they must print."""
