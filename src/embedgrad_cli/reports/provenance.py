"""Where a run's results come from, what they are checked against, and the commands that make or use them again."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedgrad_cli.config.spelling import one_line
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata
from embedgrad_cli.storage.record import Json
from embedgrad_cli.storage.run_directory import flatten
from embedgrad_cli.storage.run_records import Results


@dataclass(frozen=True)
class Fact:
    """A name and what stands behind it."""

    name: str
    value: str


def facts_of(results: Results, metadata: ArtifactMetadata | None, artifact: Path) -> list[Fact]:
    """Model, data, digests and versions, each as it was when the run began."""
    return [Fact(name, value) for name, value in _facts(results, metadata, artifact) if value]


def _facts(results: Results, metadata: ArtifactMetadata | None, artifact: Path) -> Iterator[tuple[str, str | None]]:
    model = metadata.model if metadata else None
    revision = f"@{model.revision}" if model and model.revision else ""
    yield "model", f"{results.model}{revision}"
    digests = results.digests
    if digests:
        yield "precision of its weights", digests.dtype
        yield "digest of the model", digests.model
        yield "day that its chat template was told", digests.chat_template_date
    yield "task", results.task
    yield from _data(results)
    yield "digest of all splits", results.split_hash
    yield f"digest of the {results.split} rows", results.test_hash
    if digests:
        yield "digest of the rendered rows", digests.rendering
        yield "digest of the prompts' vectors", digests.prompts
    yield "answers end at", ", ".join(map(repr, results.stop or ()))
    yield "artifact evaluated", results.artifact
    if metadata:
        yield f"sha256 of {artifact.name}", hashlib.sha256(artifact.read_bytes()).hexdigest()
        yield "commit of the data", metadata.data_revision
        yield "made with", ", ".join(f"{name} {version}" for name, version in metadata.libraries.items())


def _data(results: Results) -> Iterator[tuple[str, str | None]]:
    data = results.data
    if data is None:
        return
    if data.counts:
        yield "rows", ", ".join(f"{split} {count:,}" for split, count in data.counts.items())
    yield "repeated rows removed", str(data.duplicates_removed)
    overlaps = {split: count for split, count in data.overlaps_removed.items() if count}
    yield "rows removed that a later split holds", ", ".join(f"{split} {count}" for split, count in overlaps.items())
    if data.broken_rows_skipped:
        yield "broken rows left out", str(data.broken_rows_skipped.count)


def command_of(metadata: ArtifactMetadata | None) -> str | None:
    """The command line that made the run, where one did and is recorded."""
    if metadata is None or metadata.overrides is None:
        return None
    return shlex.join(["embedgrad", "optimize", *metadata.overrides])


def uses_of(path: Path, metadata: ArtifactMetadata | None) -> list[Fact]:
    """The commands that make this run again, test its prompt on other rows, and serve it."""
    again = command_of(metadata)
    uses = [Fact("Run again", again)] if again else []
    if metadata:
        artifact = f"artifact={path / 'prompt.safetensors'}"
        exported = path / "exported"
        served = ["embedgrad", "export", artifact, "format=model", f"output_dir={exported}"]
        uses += [
            Fact("Evaluate on other rows", shlex.join(["embedgrad", "evaluate", artifact, "task=TASK"])),
            Fact("Export for serving", shlex.join(served)),
            Fact("Serve", shlex.join(["vllm", "serve", str(exported)])),
        ]
    else:
        uses.append(Fact("Grade again", shlex.join(["embedgrad", "evaluate", "--regrade", f"output_dir={path}"])))
    return [*uses, Fact("Make this page again", shlex.join(["embedgrad", "report", str(path)]))]


def settings_of(config: Json) -> list[Fact]:
    """Every setting of config.yaml under its dotted key."""
    return [Fact(key, one_line(value)) for key, value in flatten(config).items()]
