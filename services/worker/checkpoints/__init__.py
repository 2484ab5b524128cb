"""How far a response has come that can't be begun again: what a later attempt goes on from."""
