"""Guards against what others wrote: text that would command the terminal, patterns and templates that would not end."""
