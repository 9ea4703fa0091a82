"""Broken and hostile input by the thousand, for `fuzz_inputs.py`: a module per kind of input."""
