"""Numbers that are none, in model, loss, gradient, artifact and data; embeddings that tell nothing."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torture.cases import Bench, Case, is_said
from torture.check import half_written
from torture.work import COMMANDS, FORMATS, OPTIMIZE, RUN, SHAPE, TRAINED, in_child, run

KIND = "numbers"
VALUES = {"NaN": math.nan, "infinity": math.inf, "-infinity": -math.inf}
TENSORS = ("model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight", "model.norm.weight")
PLAIN = ["evaluate", *(word for word in OPTIMIZE[1:] if not word.startswith("train.")), "template=system"]
CHOICE = ["task.kind=choice", "task.choices=['#### 1','#### 2']", "task.grader=null"]
CELLS = ("NaN", "Infinity", "-Infinity", "1e999", "null", '""')


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    """All of them, whatever `count` and `seed`."""
    for what, value in VALUES.items():
        for tensor in TENSORS:
            for command, argv in (("optimize", OPTIMIZE), ("evaluate", [*PLAIN, "arms=[none,seed]"])):
                yield _case(f"{what} in a weight", command, tensor, partial(_weights, argv, tensor, value))
        for place in ("loss", "gradient"):
            for step in (1, 2):
                yield _case(
                    f"{what} in the {place}", "optimize", f"step-{step}", partial(_at, bench, place, value, step)
                )
        for command in ("evaluate", "inspect", *(f"export {name}" for name in FORMATS)):
            argv = ["inspect", "damaged.safetensors"] if command == "inspect" else COMMANDS[command]
            yield _case(f"{what} in the artifact", command, "", partial(_artifact, argv, value))
    for cell in CELLS:
        for field in ("question", "answer"):
            yield _case("no number in the data", "optimize", f"{field}-{cell}", partial(_data, cell, field))
    for name, fill in (("zero", 0.0), ("equal", 0.5)):
        for command, argv in (("optimize", OPTIMIZE), ("evaluate", [*PLAIN, "arms=[none,seed]"])):
            tried = partial(_weights, argv, TENSORS[0], fill, codes=(0, 1, 2))
            yield _case("embeddings that are all equal", command, name, tried)
    for command, argv in (("optimize", OPTIMIZE), ("evaluate", [*PLAIN, "arms=[none,seed]"])):
        yield _case("a vocabulary of one", command, "", partial(_one_token, argv))


def _case(fault: str, command: str, detail: str, tried: Callable[[Path], list[str]]) -> Case:
    words = "-".join(word for word in ("numbers", fault, command, detail) if word)
    name = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in words)
    return Case(KIND, fault, command, name, tried)


def _weights(argv: list[str], tensor: str, value: float, place: Path, codes: tuple[int, ...] = (1, 2)) -> list[str]:
    """All of a tensor of the model is one number."""
    original = (place / "model").resolve()
    (place / "model").unlink()
    shutil.copytree(original, place / "model")

    def fill() -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(original / "model.safetensors")
        tensors[tensor] = tensors[tensor].fill_(value)
        save_file(tensors, place / "model/model.safetensors", {"format": "pt"})

    in_child(fill)
    return is_said(run(argv, place), codes) + half_written(place) + not_numbers(place)


def _at(bench: Bench, what: str, value: float, step: int, place: Path) -> list[str]:
    """In a step's loss, or in its gradient: the best prompt before it is kept, and the run goes on from there."""

    def hook() -> None:
        from embedgrad_cli.training import trainer

        real, calls = trainer.set_gradient, list[None]()

        def set_gradient(forward: Any, batch: Any, prompt: Any, *more: Any) -> Any:
            loss = real(forward, batch, prompt, *more)
            calls.append(None)
            if len(calls) == step and what == "loss":
                return loss * value
            if len(calls) == step:
                prompt.vectors.grad[0, 0] = value
            return loss

        trainer.set_gradient = set_gradient  # type: ignore[assignment]

    wrong = is_said(run(OPTIMIZE, place, hook), (1,)) + half_written(place) + not_numbers(place)
    return wrong + bench.run_again("optimize", place)


def _artifact(argv: list[str], value: float, place: Path) -> list[str]:
    def damage() -> None:
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        with safe_open(place / TRAINED, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(place / TRAINED)
        tensors["soft_prompt"][0, 0] = value
        save_file(tensors, place / "damaged.safetensors", metadata)

    in_child(damage)
    ended = run([word.replace(TRAINED, "damaged.safetensors") for word in argv], place)
    left = [] if not (place / RUN).exists() else ["it has written something"]
    return is_said(ended, (2,)) + left


def _data(cell: str, field: str, place: Path) -> list[str]:
    original = (place / "data").resolve()
    (place / "data").unlink()
    shutil.copytree(original, place / "data")
    for file in (place / "data").glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows[0][field] = "CELL"
        lines = [json.dumps(row) for row in rows]
        file.write_text("".join(line.replace('"CELL"', cell) + "\n" for line in lines))
    return is_said(run(OPTIMIZE, place), (0, 1, 2)) + half_written(place) + not_numbers(place)


def _one_token(argv: list[str], place: Path) -> list[str]:
    (place / "model").unlink()

    def make() -> None:
        import torch
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

        words = Tokenizer(models.WordLevel(vocab={"x": 0}, unk_token="x"))
        named = dict.fromkeys(("unk_token", "eos_token", "pad_token"), "x")
        PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(place / "model")
        torch.manual_seed(0)
        Qwen2ForCausalLM(Qwen2Config(vocab_size=1, eos_token_id=0, **SHAPE)).save_pretrained(place / "model")

    in_child(make)
    return is_said(run(argv, place), (0, 1, 2)) + half_written(place) + not_numbers(place)


def not_numbers(place: Path) -> list[str]:
    """What says NaN or infinity, of what the command has left: JSON has no such number, a prompt must have none."""
    wrong = []
    for file in sorted((place / RUN).rglob("*.json*")):
        for line in file.read_text().splitlines():
            try:
                json.loads(line, parse_constant=_refuse) if file.suffix == ".jsonl" else None
            except ValueError:
                wrong.append(f"{file.relative_to(place)} holds a number that is none: {line[:200]}")
                break
        if file.suffix == ".json":
            try:
                json.loads(file.read_text(), parse_constant=_refuse)
            except ValueError:
                wrong.append(f"{file.relative_to(place)} holds a number that is none")
    files = sorted((place / RUN).rglob("*.safetensors"))
    bad = in_child(lambda: [file.name for file in files if not _is_finite(file)]) if files else []
    assert isinstance(bad, list)
    return [*wrong, *(f"{name} holds a number that is none" for name in bad)]


def _refuse(name: str) -> float:
    raise ValueError(name)


def _is_finite(file: Path) -> bool:
    from safetensors.torch import load_file

    return all(bool(tensor.float().isfinite().all()) for tensor in load_file(file).values())
