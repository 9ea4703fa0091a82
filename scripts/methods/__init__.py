"""Ways to adapt a frozen model, behind one interface, for `compare_methods.py`."""
