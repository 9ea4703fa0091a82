"""Override lines and YAML files of the user's own: types, ranges, interpolations, cycles, anchors."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from embedgrad_cli.config.build import keys
from embedgrad_cli.config.compose import Composer
from embedgrad_cli.config.folder import conf_dir
from fuzz.case import Case
from fuzz.mutations import NUMBERS, as_bytes, cut_bytes, edited, texts, values

COMMANDS = ("optimize", "optimize", "evaluate", "export")
SHAPES = [
    "{k}={v}", "{k}={v}", "{k}={v}", "+{k}={v}", "++{k}={v}", "~{k}", "{k}", "={v}", "{k}==", "{k}=[{v},{v}]",
    "{k}={{{k}: {v}}}", "{k}={v},{v}", "{k}=range(0,{v})", "{k}=interval(0,1)", "{k}=choice({v})", "{k}=${{{k}}}",
    "{k}=${{oc.decode:{v}}}", "{k}=${{oc.env:NONE}}", "{k}=glob(*)", "{k}.{k}={v}", "{k}.0={v}", "{k}@x={v}",
    "{k}='{v}'", '{k}="{v}"', "{k}=\\{v}", "hydra.{k}={v}", "--{k}={v}", "--{k}", "-{v}", "{v}",
]  # fmt: skip
RIGHT = ["seed=3", "device=cpu", "log_level=debug", "task=reviews", "prompt=sentiment", "model=tiny"]
YAMLS = [
    "a: &a [*a]\nname: mine\n",
    "x: &x {y: *x}\n",
    "a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c]\n",
    "defaults: [mine]\n",
    "defaults: [/task/mine, /task/reviews]\n",
    "defaults: [{override /task: mine}]\n",
    "name: ${.name}\n",
    "query: ${task.target}\ntarget: ${task.query}\n",
    "name: !!python/object/apply:os.system ['touch owned']\n",
    "name: !!binary aGk=\n",
    "name: 2020-01-01\nkind: 12:30:45\n",
    "<<: {name: x}\nname: y\n",
    "name: mine\nname: twice\n",
    "? [a, b]\n: c\n",
    "1: 2\ntrue: 3\nnull: 4\n",
    "- a\n- b\n",
    "just text\n",
    "",
    "---\na: 1\n---\nb: 2\n",
    "%YAML 9.9\n---\na: 1\n",
    "a: '\x00'\n",
    "a: \x1b[2J\n",
    "a:\t1\n",
    "max_new_tokens: 0777777\n",
    "_target_: os.system\n",
    "a: " + "[" * 500 + "]" * 500,
    "a: " + "[" * 20000,
]


@cache
def _keys() -> list[str]:
    return sorted({key for command in ("optimize", "evaluate", "export") for key in keys(command)})


def lines() -> SearchStrategy[Case]:
    """Command lines of one to four overrides; what they ask for does not run."""
    groups = Composer().groups()
    names = st.sampled_from([*_keys(), *groups]) | texts
    choices = st.sampled_from([choice for known in groups.values() for choice in known])
    scalars = texts | st.sampled_from(NUMBERS).map(str) | choices | st.sampled_from(["null", "[]", "{}", "???", "1e3"])
    one = st.builds(lambda shape, key, value: shape.format(k=key, v=value), st.sampled_from(SHAPES), names, scalars)
    some = st.lists(one | st.sampled_from(RIGHT), min_size=1, max_size=4)
    return st.builds(_line, st.sampled_from(COMMANDS), some, st.booleans())


def _line(command: str, overrides: list[str], multirun: bool) -> Case:
    # A word of a command line holds no zero byte, and what is no UTF-8 in it comes as Python reads it.
    words = [word.replace("\x00", "") for word in overrides]
    return Case({}, (command, *["--multirun"] * multirun, *words, "output_dir=out"), runs=False)


def trees() -> SearchStrategy[Case]:
    """A task's YAML in a folder of the user's own: edited trees, cut files, and what YAML allows and nobody expects."""
    folder = conf_dir() / "task"
    contents = {file: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.yaml"))}
    tree = st.sampled_from(sorted(contents)).flatmap(lambda file: _written(contents[file]))
    cut = st.sampled_from(sorted(contents)).flatmap(lambda file: cut_bytes(file.read_bytes()))
    return st.builds(_tree, tree | tree | cut | st.sampled_from(YAMLS).map(as_bytes))


@st.composite
def _written(draw: DrawFn, content: Any) -> bytes:
    return as_bytes(yaml.safe_dump(draw(edited(content, values)), allow_unicode=draw(st.booleans())))


def _tree(content: bytes) -> Case:
    words = ("optimize", "--config-dir={folder}", "task=mine", "output_dir=out")
    return Case({"task/mine.yaml": content}, words, names=("mine", "task.", "task"), runs=False)
