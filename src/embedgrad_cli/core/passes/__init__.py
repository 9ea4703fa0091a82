"""Passes through the frozen model: loss and gradient, scores, answers.

Begin with `forward`. `network_pass` is what it asks of the network; `scoring` and `generation` make answers by it;
`trunk_check` tries out whether a model may be run so, and `plain` is how it is run where not.
"""
