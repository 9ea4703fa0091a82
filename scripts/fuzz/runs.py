"""Checkpoints and run folders: every file of a run edited, cut, emptied, exchanged or gone, then used."""

from __future__ import annotations

import io
import json
import struct
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from embedgrad_cli.cli.main import main
from fuzz.case import Case
from fuzz.mutations import as_bytes, as_json, cut_bytes, edited, raw_values, values

SMALL = ("task=reviews", "prompt=sentiment", "report=false", "--quiet", "train.batch_size=4", "train.steps=2")
SIZES = ("task.split.num_train=8", "task.split.num_validation=4", "task.split.num_test=4", "train.eval_every=1")
OPTIMIZE = ("optimize", *SMALL, *SIZES, "train.checkpoint_every=1", "output_dir=run")
EVALUATE = (
    "evaluate",
    "artifact=run/prompt.safetensors",
    "arms=[seed,optimized]",
    "report=false",
    "--quiet",
    "output_dir=evaluation",
)
CHECKPOINT, RESULTS, CONFIG = "run/checkpoint.safetensors", "run/results.json", "run/config.yaml"
SAMPLES, METRICS = "run/samples.jsonl", "run/metrics.jsonl"
EVALUATED = ("evaluation/results.json", "evaluation/config.yaml", "evaluation/samples.jsonl")
# What uses a run, and which of its files that reads.
USES = [
    (("compare", "run", "evaluation"), (RESULTS, CONFIG, METRICS, *EVALUATED)),
    (("compare", "run", "--format", "json"), (RESULTS, CONFIG)),
    (("report", "run"), (RESULTS, CONFIG, SAMPLES, METRICS)),
    (("report", "run", "evaluation", "output=all.html"), (RESULTS, CONFIG, *EVALUATED)),
    (("evaluate", "--regrade", "output_dir=evaluation", "report=false", "--quiet"), EVALUATED),
    (EVALUATE, EVALUATED[:2]),
    (OPTIMIZE, (CHECKPOINT, CHECKPOINT, CHECKPOINT, CONFIG, METRICS)),
    (OPTIMIZE, (RESULTS, CONFIG)),
]


def make_base(folder: Path) -> Path:
    """A run and an evaluation of it, each finished. Returns: their folder."""
    with chdir(folder), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for words in (OPTIMIZE, EVALUATE):
            if code := main(list(words)):
                raise SystemExit(f"exit code {code}: {' '.join(words)}")
    return folder


def cases(base: Path) -> SearchStrategy[Case]:
    """Cases of the folder that `make_base` made."""
    files = {str(file.relative_to(base)): file.read_bytes() for file in sorted(base.rglob("*")) if file.is_file()}
    return st.sampled_from(USES).flatmap(lambda use: _cases(files, *use))


@st.composite
def _cases(draw: DrawFn, files: dict[str, bytes], words: tuple[str, ...], read: tuple[str, ...]) -> Case:
    files, name = dict(files), draw(st.sampled_from(read))
    files[name] = draw(_broken(name, files))
    if name in (CHECKPOINT, METRICS) and words is OPTIMIZE:
        del files[RESULTS]  # the run goes on
    return Case(files, words, names=(Path(name).name, "output_dir=", "task.", "model."), broken=name)


@st.composite
def _broken(draw: DrawFn, name: str, files: dict[str, bytes]) -> bytes:
    content, ending = files[name], name.rpartition(".")[2]
    way = draw(st.sampled_from(["tree", "tree", "tree", "bytes", "empty", "other"]))
    if way == "empty":
        return draw(st.sampled_from([b"", b"\n", b"{}", b"[]", b"null", b"0", b"\x00" * 64, b"{"]))
    if way == "other":
        return files[draw(st.sampled_from(sorted(files)))]
    if way == "bytes":
        return draw(cut_bytes(content))
    if ending == "json":
        return as_bytes(as_json(draw(edited(json.loads(content), raw_values))))
    if ending == "yaml":
        return as_bytes(yaml.safe_dump(draw(edited(yaml.safe_load(content), values))))
    if ending == "jsonl":
        rows = draw(edited([json.loads(line) for line in content.splitlines()], raw_values))
        return as_bytes("".join(as_json(row) + "\n" for row in (rows if isinstance(rows, list) else [rows])))
    return draw(_checkpoint(content))


@st.composite
def _checkpoint(draw: DrawFn, content: bytes) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    if draw(st.booleans()):
        key = next(iter(header["__metadata__"]))
        header["__metadata__"][key] = as_json(draw(edited(json.loads(header["__metadata__"][key]), raw_values)))
        raw = as_bytes(json.dumps(header))
    else:
        raw = as_bytes(as_json(draw(edited(header, raw_values))))
    return struct.pack("<Q", len(raw)) + raw + content[8 + length :]
