"""Passes through the frozen model: loss and gradient, scores, answers."""
