"""Settings: their schema, their checks, and the way from a command line to them. Nothing heavy is imported."""
