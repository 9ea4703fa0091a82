"""A model whose network is a small exact stand-in, on which ways of computing are tried out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from embedgrad_cli.core.kernels.stand_in import stand_in_of
from embedgrad_cli.core.model.language_model import LanguageModel


@contextmanager
def trial_of(model: LanguageModel) -> Iterator[LanguageModel]:
    """The model with `stand_in_of` its network. Meanwhile nothing else may use the model.

    A new object even of the same network: what it finds out about the shortened one is not the model's.
    """
    with stand_in_of(model.network) as network:
        yield replace(model, network=network)
