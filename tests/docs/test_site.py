"""The documentation as a site: every page has its place, every link an end, the reference leaves nothing out."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from tests.docs.snippets import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from docs_pages import pages
from docs_site.outside import NAMED, Outside
from embedgrad_cli.config.build import COMMANDS, keys, settings
from embedgrad_cli.config.compose import Composer
from embedgrad_cli.config.folder import conf_dir
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata
from embedgrad_cli.storage.metrics_records import StepMetrics, ValidationMetrics
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.storage.run_directory import RunDirectory
from embedgrad_cli.storage.sample_records import Sample
from embedgrad_cli.storage.training_answers import AnsweredRow

SCREEN = 100  # lines of README.md
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site() -> dict[str, str]:
    return pages()


class Loose(yaml.SafeLoader):
    """Reads mkdocs.yml without making what its tags name."""


Loose.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def navigation(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for inner in (entry.values() if isinstance(entry, dict) else entry) for page in navigation(inner)]


def prose(markdown: str) -> str:
    return FENCED.sub("", markdown)


def anchors(markdown: str) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(markdown), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_in_the_navigation() -> None:
    nav = navigation(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loose)["nav"])
    there = [path.name for path in (ROOT / "docs").glob("*.md")] + [*NAMED.values()]
    assert sorted(set(there) - set(nav)) == [], "give these pages of docs/ their place under `nav` in mkdocs.yml"
    assert sorted(set(nav) - set(there)) == [], "`nav` in mkdocs.yml names pages that are not in docs/"
    assert len(nav) == len(set(nav))


def test_every_link_leads_to_a_page_and_an_anchor(site: dict[str, str]) -> None:
    broken = []
    for page, text in site.items():
        for link in LINK.findall(prose(text)):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = os.path.normpath(Path(page).parent / path) if path else page
            if target not in site and not (ROOT / "docs" / target).is_file():
                broken.append(f"{page}: {link}")
            elif anchor and anchor not in anchors(site[target]):
                broken.append(f"{page}: {link} (no such heading)")
    assert broken == []


def test_files_that_pages_link_to_are_pages(site: dict[str, str]) -> None:
    assert "source/src/embedgrad_cli/prompt.py.md" in site
    assert "\n# embedgrad\n" in site["index.md"]
    outside = Outside(ROOT)
    outside.pages()
    text = "[a](../src/embedgrad_cli/prompt.py) [b](models.md#gguf-files) [c](https://hydra.cc)\n```\n[d](../README.md)\n```\n"
    relinked = outside.relinked(text, "python.md")
    assert "(source/src/embedgrad_cli/prompt.py.md)" in relinked
    assert "(models.md#gguf-files) [c](https://hydra.cc)" in relinked
    assert "[d](../README.md)" in relinked  # code


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_has_its_line(command: str, site: dict[str, str]) -> None:
    """In the section of its command, or in that of an earlier one with a line there that says so."""
    above, _, section = site["settings.md"].partition(f"## `embedgrad {command}`\n")
    section = section.partition("\n## ")[0]
    shared = re.findall(r"`(\w+)`", section.partition("As above: ")[2].partition("\n")[0])
    missing = [key for key in keys(command) if f"| `{key}` | " not in section]
    assert [key for key in missing if f"| `{key}` | " not in above or key.partition(".")[0] not in shared] == []


def test_a_line_says_range_default_and_meaning(site: dict[str, str]) -> None:
    words = {key: item.metadata["words"] for key, _, item in settings(COMMANDS["optimize"])}
    line = f"| `train.average` | number or null, from 0, up to 0.9999 | `null` | {words['train.average']} |"
    assert line in site["settings.md"]
    assert "| `optimizer.lr` | number, above 0 | that of `optimizer=` | " in site["settings.md"]


def test_every_choice_is_there(site: dict[str, str]) -> None:
    for group, names in Composer().groups().items():
        section = site["settings.md"].partition(f"### `{group}=`\n")[2].partition("\n### ")[0]
        assert [name for name in names if f"| `{name}` | " not in section] == []
    assert "| `sst2` | SST-2" in site["settings.md"]
    assert conf_dir().is_dir()


def test_every_file_of_a_run_directory_is_there(site: dict[str, str]) -> None:
    table = site["files.md"].partition("## The run directory")[2].partition("\n## ")[0]
    files = [path.name for path in vars(RunDirectory(Path("nowhere"), {})).values() if isinstance(path, Path)]
    missing = [name for name in files if name != "nowhere" and f"`{name}`" not in table]
    assert missing == [], "docs/files.md says of every file of RunDirectory what it is"


def records_in(kind: Any) -> list[type]:
    """A record and those that stand in it, each once."""
    found: list[type] = []
    waiting = [kind]
    while waiting:
        part = waiting.pop()
        waiting += get_args(part)
        if is_dataclass(part) and part not in found:
            found.append(part)  # type: ignore[arg-type]
            waiting += get_type_hints(part).values()
    return found


@pytest.mark.parametrize("record", [Results, Sample, StepMetrics, ValidationMetrics, AnsweredRow, ArtifactMetadata])
def test_every_key_of_a_file_is_there(record: type, site: dict[str, str]) -> None:
    for part in records_in(record):
        section = site["files.md"].partition(f"### {part.__name__}\n")[2].partition("\n#")[0]
        assert [item.name for item in fields(part) if f"| `{item.name}` | " not in section] == []


def test_the_interface_is_there(site: dict[str, str]) -> None:
    for name in ("embedgrad_cli.load(", "Prompt.apply(model", "Prompt.vectors: Tensor", "Prompt.to_vllm("):
        assert name in site["python.md"]


def test_the_readme_is_one_screen() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= SCREEN, "README.md is one screen of what and why; the rest has pages in docs/"
    assert {"make demo", "make test"} <= {line.partition(" #")[0].strip() for line in readme.splitlines()}
