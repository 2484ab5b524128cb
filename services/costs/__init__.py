"""What responses and tool calls cost: prices, the ledger and its reports."""
