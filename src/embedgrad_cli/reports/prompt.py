"""The vectors of a run's prompt, one by one: how far each is from its seed token, and which tokens are nearest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedgrad_cli.storage.results_record import Results


@dataclass(frozen=True)
class TokenLine:
    """One vector. `seed` is its seed token, None where the run directory does not say; `nearest` is best first."""

    number: int
    slot: int | None
    seed: str | None
    drift: float
    cosine: float
    nearest: list[str]


@dataclass(frozen=True)
class PromptTokens:
    """The vectors, and why something about them is not known."""

    lines: list[TokenLine]
    missing: str | None = None


def tokens_of(artifact: Path, results: Results) -> PromptTokens:
    """What is known of each vector: from the artifact and, as far as it is on this machine, its model's table.

    Raises:
        ArtifactError: the artifact in the run directory cannot be read.
    """
    if artifact.exists():
        return _inspected(artifact)
    drift = results.drift
    if drift is None or drift.relative_l2 is None or drift.cosine is None:
        return PromptTokens([])
    near = drift.nearest or []
    lines = [
        TokenLine(number, None, None, distance, cosine, [f"#{token}" for token in near[number - 1 : number]])
        for number, (distance, cosine) in enumerate(zip(drift.relative_l2, drift.cosine, strict=True), start=1)
    ]
    return PromptTokens(lines, "the artifact is not in this folder, so tokens are shown by their ids.")


def _inspected(artifact: Path) -> PromptTokens:
    from embedgrad_cli.core.prompt.artifact import load_artifact  # torch, which nothing else here needs
    from embedgrad_cli.core.prompt.inspection import inspect

    inspection = inspect(load_artifact(artifact), str(artifact))
    lines = [
        TokenLine(
            number=number,
            slot=token.slot,
            seed=token.seed_name,
            drift=token.relative_drift,
            cosine=token.cosine,
            nearest=[f"{near.name} {near.cosine:.2f}" for near in token.nearest],
        )
        for number, token in enumerate(inspection.tokens, start=1)
    ]
    return PromptTokens(lines, inspection.missing)
