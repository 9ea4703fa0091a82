"""Faults that are made on purpose, and what has to be left after them. `python scripts/run_torture.py` runs them."""
