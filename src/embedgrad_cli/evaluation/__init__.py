"""Prompts under evaluation: who answers, what was answered, what it was worth, and how sure that is.

In this order: `arms` (`saved_prompts`, where they are of a file), `answers`, `outcomes`, `results`, `significance`.
`served` is the same where a server answers.
"""
