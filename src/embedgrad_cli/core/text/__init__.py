"""From messages and rows to tokens in which the places of the prompt are marked.

Begin with `template`, then `marked_tokens`: what an example is. `encoding` makes examples of rows.
"""
