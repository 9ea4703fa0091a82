"""What was generated, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedgrad_cli.core.text.stop_strings import StopStrings
from embedgrad_cli.storage.sample_records import Ending


@dataclass(frozen=True)
class GeneratedAnswer:
    """Token ids up to those that complete a stop string, without a token that ended the turn; and how they ended."""

    ids: list[int]
    ending: Ending

    @classmethod
    def of(cls, ids: Sequence[int], ending: Ending, stops: StopStrings) -> GeneratedAnswer:
        """Cut where a stop string is complete, whatever the generation did: so every way of generating agrees."""
        stopped = stops.num_tokens(ids)
        return cls(list(ids), ending) if stopped is None else cls(list(ids[:stopped]), "stop")
