"""What services share about messages: envelopes, contracts, topics, packs; no behaviour."""
