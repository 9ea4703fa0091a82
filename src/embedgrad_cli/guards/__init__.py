"""Guards of texts: what others wrote must not command the terminal, patterns and templates must end, and a setting to
type must come back from the shell as it was.
"""
