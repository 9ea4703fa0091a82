"""The optimisation itself: steps, validation, checkpoints."""
