"""The processes that compute one run together, and how they are started.

Begin with `ranks`. See docs/parallel.md.
"""
