"""Data, splits and graders: everything a task's YAML describes, as rows that a model can be asked."""
