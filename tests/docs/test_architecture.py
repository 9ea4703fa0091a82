"""docs/architecture.md and CONTRIBUTING.md cannot go stale: their floors, tests and names are those of the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def floors_of_the_page() -> list[set[str]]:
    rows = re.findall(r"^\| \d+ \| (.+?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", row)) for row in rows]


def test_the_floors_are_those_of_the_contract() -> None:
    layers = next(contract["layers"] for contract in CONTRACTS if contract["containers"] == ["embedgrad_cli"])
    assert floors_of_the_page() == [set(layer.split(" | ")) for layer in layers]


def test_every_room_is_on_a_floor() -> None:
    package = ROOT / "src/embedgrad_cli"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert set().union(*floors_of_the_page()) == rooms - {"__init__"}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[\w/.]+::\w+)`", PAGE.read_text(encoding="utf-8")))))
def test_a_promise_is_held_by_a_test_that_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_names_in_the_pages_stand_in_the_code(page: Path) -> None:
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py")]
    )
    names = re.findall(r"`([a-zA-Z_]\w+)`", page.read_text(encoding="utf-8"))
    commands = re.findall(r"`(\w+)\(", page.read_text(encoding="utf-8"))
    for name in {name for name in (*names, *commands) if "_" in name or name[0].isupper()}:
        assert re.search(rf"\b{name}\b", code), name
