"""The tables in PostgreSQL and what is asked of them."""
