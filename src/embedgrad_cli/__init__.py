"""embedgrad: adapt a frozen causal language model by optimising the embeddings of a written prompt.

prompt = embedgrad_cli.load("prompt.safetensors")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from embedgrad_cli.prompt import Prompt

__all__ = ["__version__", "load"]
__version__ = "0.2.0.dev0"


def load(path: str | os.PathLike[str]) -> Prompt:
    """Read an optimised prompt, to be used with `transformers` or vLLM. See `embedgrad_cli.prompt.Prompt`.

    Raises:
        ArtifactError: the file is missing, damaged, not an artifact, or of a newer format.
    """
    from embedgrad_cli.prompt import Prompt  # torch is imported here, not with the package

    return Prompt(path)
