"""Rules of webhooks: endpoints, events, addresses, signatures. No I/O."""
