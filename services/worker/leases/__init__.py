"""Who runs which response: leases, and what happens to those that expire."""
