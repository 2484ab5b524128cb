"""The queue of background responses: parked in the lease table, taken in fair order, run here."""
