"""One module per subcommand: each reads from top to bottom like what the command does."""
