"""Finished runs side by side.

In this order: `runs` are read, `entries` made of them, `sections` say what they show, and `formats` print it.
"""
