"""embedgrad: adapt a frozen causal language model by optimising the embeddings of a written prompt."""

__version__ = "0.1.0"
