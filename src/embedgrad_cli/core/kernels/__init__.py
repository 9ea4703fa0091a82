"""Packed batches, key-value caches, attention and losses: what the passes are made of. Knows no settings.

Begin with `packed_batch` and `kv_cache`, which all passes hand on; then `shared_prefix_attention` and
`frozen_head_loss`.
"""
