"""Packed batches, key-value caches, attention and losses: what the passes are made of. Knows no settings."""
