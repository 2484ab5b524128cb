"""Conversations: their items, and the turns that responses take in them."""
