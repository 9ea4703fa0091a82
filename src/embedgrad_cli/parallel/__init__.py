"""The processes that compute one run together, and how they are started. See docs/parallel.md."""
