"""Runs responses against upstream models: commands in, packs and facts out."""
