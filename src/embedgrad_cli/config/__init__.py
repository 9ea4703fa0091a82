"""Settings: their schema, their checks, and the way from a command line to them. Nothing heavy is imported.

Begin with `schema`. `compose` leads from a command line to it, `build` finds what is of a wrong type or out of range,
and `checks`, with the modules that end like it, what does not go together.
"""
