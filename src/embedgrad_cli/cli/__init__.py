"""The entry point: finds the subcommand, checks its input, runs it, and says what went wrong."""
