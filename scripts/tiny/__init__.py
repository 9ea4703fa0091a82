"""The embedded model: the text it learns from, how it learns, and its card."""
