"""docs/architecture.md and CONTRIBUTING.md say what the code says: floors, names, tests, the row that is followed."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from tests.docs.snippets import ROOT

from embedgrad_cli.config.compose import Request, config_of
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.model.device import pick_device
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.tasks.load import load

TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("docs/architecture.md", "CONTRIBUTING.md")}
ARCHITECTURE = TEXTS["docs/architecture.md"]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
TABLES = {"embedgrad_cli": "| floor | rooms |", "embedgrad_cli.core": "| floor of `core` | room |"}
TESTS = sorted({match for text in TEXTS.values() for match in re.findall(r"`(tests/[\w/.]+)::(\w+)`", text)})
SOURCES = [path.read_text(encoding="utf-8") for room in ("src", "tests") for path in (ROOT / room).rglob("*.py")]


def table(container: str) -> list[tuple[int, set[str], str]]:
    """The floors of a table, from the top: number, rooms, what they may import."""
    rows = ARCHITECTURE.partition(TABLES[container])[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (\d+) \| (.+?) \| .+ \| (.+?) \|$", rows, re.MULTILINE)
    return [(int(number), set(re.findall(r"`(\w+)`", rooms)), imports) for number, rooms, imports in cells]


def contract(**having: Any) -> Any:
    (known,) = [one for one in CONTRACTS if all(one.get(key) == value for key, value in having.items())]
    return known


@pytest.mark.parametrize("container", TABLES)
def test_the_floors_are_the_layers_of_the_contract(container: str) -> None:
    layers = contract(type="layers", containers=[container])["layers"]
    assert [rooms for _, rooms, _ in table(container)] == [set(layer.split(" | ")) for layer in layers]
    assert [number for number, _, _ in table(container)] == list(range(len(layers), 0, -1))


@pytest.mark.parametrize("container", TABLES)
def test_a_floor_may_import_from_all_below(container: str) -> None:
    below = {1: "", 2: "floor 1"}
    for number, _, imports in table(container):
        assert imports.startswith(below.get(number, f"floors 1 to {number - 1}"))


def test_what_else_a_room_may_not_import() -> None:
    forbidden = contract(name="Input is checked before torch is imported")
    without_torch = {module.rpartition(".")[2] for module in forbidden["source_modules"]}
    said = {room for _, rooms, imports in table("embedgrad_cli") for room in rooms if "not torch" in imports}
    assert said - {"assets"} == without_torch  # whose row says that `storage` alone is meant
    kernels = contract(name="Kernels know neither settings nor files")["forbidden_modules"]
    *_, (_, _, imports) = table("embedgrad_cli.core")
    assert {f"embedgrad_cli.{room}" for room in re.findall(r"`(\w+)`", imports)} == set(kernels)


@pytest.mark.parametrize(("file", "function"), TESTS)
def test_a_test_that_is_named_exists(file: str, function: str) -> None:
    assert re.search(rf"^def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", TEXTS)
def test_names_of_the_code_exist(page: str) -> None:
    names = set(re.findall(r"`(?:\w+\.)?([A-Za-z_]\w+)(?:\(\))?`", TEXTS[page]))
    code = "\n".join(SOURCES)
    missing = [name for name in names if re.search(r"_|[A-Z]", name) and not re.search(rf"\b{name}\b", code)]
    assert missing == []


def test_the_row_that_is_followed() -> None:
    """Every number in italics, in the order in which the page has them."""
    config = config_of(Request("optimize", []))
    assert isinstance(config, OptimizeConfig)
    assert isinstance(config.prompt.text, str)
    model = load_model(config.model, pick_device("cpu"))
    template = PromptTemplate(config.template, [config.prompt.text], model.tokenizer, model.is_chat)
    encoded = encode(load(config.task, config.seed).train, template, model, append_end_token=True)
    forward, first = Forward(model, encoded.examples), encoded.examples[0]
    vectors = list(SoftPrompt.from_seed(encoded.slots, model).vectors.shape)
    expected = [len(first.tokens), len(first.target), encoded.slots.num_tokens, *vectors]
    expected += [config.train.batch_size, len(forward.trunk), forward.frozen_trunk.width]
    followed = ARCHITECTURE.partition("## One training row")[2].partition("\n## ")[0]
    said = [
        int(number)
        for words in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", followed)
        for number in re.findall(r"\d+", words)
    ]
    assert said == expected
