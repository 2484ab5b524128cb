"""The rules of charging: usage, prices, ledger lines, reports; no I/O."""
