"""The frozen model: its weights, its tokenizer, and the tokens nearest to a vector.

Begin with `language_model`, which `load` makes of files. What settings ask of the weights is in `precision`,
`quantized` and `laid_out`; what is asked of a chat template in `pinned_template` and `chat_rendering`.
"""
