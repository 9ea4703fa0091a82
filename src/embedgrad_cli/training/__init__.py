"""The optimisation itself: steps, validation, checkpoints.

Begin with `trainer`; `final_test` is a run's end. What a step trains on is in `targets`, what else bends a step in a
short module each: `trust_region`, `averaging`, `token_dropout`.
"""
