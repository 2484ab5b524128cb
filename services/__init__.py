"""The services of Antiphon, one folder each, and the kit they share."""
