"""Data, splits and graders: everything a task's YAML describes, as rows that a model can be asked.

Begin with `load`: from files (`sources`, `readers`) to rows (`rows`) to splits (`splits`).
"""
