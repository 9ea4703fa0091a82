"""The commands of a report can be typed as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.artifacts import plain_metadata

from embedgrad_cli.config.compose import Request, check_line
from embedgrad_cli.reports.provenance import uses_of
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata


@pytest.mark.parametrize("folder", ["outputs/demo", "my runs/ä, (b) = it's"])
def test_commands_are_read_with_any_folder(folder: str) -> None:
    metadata = ArtifactMetadata.from_json(plain_metadata(), "artifact")
    uses = {use.name: use.value for known in (metadata, None) for use in uses_of(Path(folder), known)}
    composed = {}
    for name in ("Evaluate on other rows", "Export for serving", "Grade again"):
        _, command, *words = shlex.split(uses[name].replace(" task=TASK", "").replace("--regrade ", ""))
        line = check_line(Request(command, words), values=False)
        assert (line.problems, line.composed is None) == ([], False)
        composed[name] = line.composed
    assert composed["Evaluate on other rows"].artifact == f"{folder}/prompt.safetensors"
    assert composed["Export for serving"].output_dir == f"{folder}/exported"
    assert composed["Grade again"].output_dir == folder
    assert shlex.split(uses["Make this page again"])[-1] == folder
