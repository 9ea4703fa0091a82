"""The entry point: finds the subcommand, checks its input, runs it, and says what went wrong.

Begin with `main`. `job_line` takes the line of optimize, evaluate and export apart; `hydra_job` runs its one job,
`sweep` its many.
"""
