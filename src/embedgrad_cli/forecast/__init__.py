"""What a run would take: rows, tokens, operations, memory and time, before it is started.

Begin with `make`. `workload` is what a run computes, `memory` and `timing` what that takes, `figures` what is said of
it.
"""
