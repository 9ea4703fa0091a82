"""The subcommands, and the flags and short words that stand for settings."""

JOBS = ("optimize", "evaluate", "export")  # composed and run by Hydra; the others take flags of their own
COMMANDS = (*JOBS, "inspect", "compare", "report", "tasks")
QUIET = {"--quiet": "quiet=true"}
MODES = {"--predict-only": "mode=predict-only", "--regrade": "mode=regrade"}
PUSH = "--push"
SEARCH = {"search=true": "search.budget=10000", "search=false": "search.budget=0"}
INTERRUPTED = 130
