"""The whole system from outside: HTTP in, answers, facts on topics and ledger lines out."""
