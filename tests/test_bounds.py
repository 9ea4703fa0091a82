"""pyproject.toml, the lowest versions that `make test-lowest` installs, and the newest that everything was run with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = ("dev", "bench", "gguf", "joblib", "slurm", "optuna")  # by `make setup` and `make test-lowest`


def bounded(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by their name, without those that take every version; an extra's stand behind the package's own."""
    found = {canonicalize_name(one.name): one for one in map(Requirement, lines)}
    return {name: one for name, one in found.items() if one.specifier}


def pins(file: str) -> dict[str, str]:
    lines = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_lowest_versions_are_those_that_pyproject_names() -> None:
    named = bounded([*PROJECT["dependencies"], *(line for extra in INSTALLED for line in EXTRAS[extra])])
    lowest = {name: [bound.version for bound in one.specifier if bound.operator == ">="] for name, one in named.items()}
    assert {name: [version] for name, version in pins("constraints-lowest.txt").items()} == lowest


@pytest.mark.parametrize("extra", ["dependencies", *EXTRAS])
def test_the_newest_versions_are_within_the_bounds(extra: str) -> None:
    newest = pins("constraints.txt")
    lines = PROJECT["dependencies"] if extra == "dependencies" else EXTRAS[extra]
    assert [
        f"{one} is not {newest[name]}"
        for name, one in bounded(lines).items()
        if name in newest and not one.specifier.contains(newest[name], prereleases=True)
    ] == []
