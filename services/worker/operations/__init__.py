"""Commands that make no response: counting input tokens, compacting a conversation."""
