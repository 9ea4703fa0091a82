"""The frozen model: its weights, its tokenizer, and the tokens nearest to a vector."""
