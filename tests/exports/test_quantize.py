"""`quantize=TYPE`: what `llama-quantize` is asked for, and what becomes of what it says. It is a stand-in here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gguf import GGUFReader
from tests.exports.conftest import Case
from tests.exports.test_refusals import assert_refused

Capture = pytest.CaptureFixture[str]


def program(folder: Path, script: str) -> str:
    """A stand-in; its arguments are `--token-embedding-type`, its type, the whole file, the smaller one, and a type."""
    file = folder / "llama-quantize"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_it_is_asked_to_keep_the_prompts_vectors(case: Case, tmp_path: Path, capsys: Capture) -> None:
    asked = tmp_path / "asked"
    quantizer = program(tmp_path, f'cp "$3" "$4" && echo "$1 $2 $5" > {asked}')
    assert case.export("gguf", tmp_path / "out", "quantize=Q4_K_M", f"quantizer={quantizer}") == 0
    assert asked.read_text().split() == ["--token-embedding-type", "f32", "Q4_K_M"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Modelfile", "model.gguf"]
    assert GGUFReader(tmp_path / "out/model.gguf").tensors
    assert "(Q4_K_M, the input embeddings F32)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo \"llama_quantize: invalid ftype '$5'\"; exit 1", "invalid ftype 'BLAH'"),
        ('head -c 99 "$3" > "$4"; echo "llama_model_quantize: failed to quantize: no space" >&2; exit 1', "no space"),
        ("exit 0", "said nothing"),
        ('tr "\\\\0" "\\\\1" < "$3" > "$4"', "vectors"),
    ],
    ids=["an unknown type", "a full disk", "no file", "no GGUF file"],
)
def test_a_failure_is_one_sentence(script: str, said: str, case: Case, tmp_path: Path, capsys: Capture) -> None:
    quantizer = program(tmp_path, script)
    code = case.export("gguf", tmp_path / "out", "quantize=BLAH", f"quantizer={quantizer}")
    errors = capsys.readouterr().err
    assert_refused(code, tmp_path, errors, "quantize=BLAH")
    assert said in errors


def test_other_vectors_are_noticed(case: Case, tmp_path: Path, capsys: Capture) -> None:
    """One number of one vector."""
    script = f"""exec {sys.executable} - "$3" "$4" <<'PROGRAM'
import shutil, sys
from gguf import GGUFReader
shutil.copyfile(*sys.argv[1:])
next(one for one in GGUFReader(sys.argv[2], "r+").tensors if one.name == "token_embd.weight").data[-1, -1] += 1
PROGRAM"""
    code = case.export("gguf", tmp_path / "out", "quantize=Q8_0", f"quantizer={program(tmp_path, script)}")
    assert_refused(code, tmp_path, capsys.readouterr().err, "vectors")


def test_without_the_program(case: Case, tmp_path: Path, capsys: Capture) -> None:
    code = case.export("gguf", tmp_path / "out", "quantize=Q8_0", "quantizer=no-such-program")
    assert_refused(code, tmp_path, capsys.readouterr().err, "llama.cpp")


@pytest.mark.parametrize("settings", [["format=model", "quantize=Q8_0"], ["format=gguf", "quantize=--help"]])
def test_settings_that_make_no_sense(settings: list[str], case: Case, tmp_path: Path, capsys: Capture) -> None:
    assert case.export("gguf", tmp_path / "out", *settings) == 2
    assert "quantize: " in capsys.readouterr().err
