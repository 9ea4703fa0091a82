"""The soft prompt, the file that it is saved in, and the text nearest to it.

Begin with `soft_prompt`, then `artifact`.
"""
