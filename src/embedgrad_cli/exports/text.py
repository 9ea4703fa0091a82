"""`format=text`: the prompt read as text, and what that text is worth on the task, measured.

With `search.budget` a short search also looks for the best text prompt (see `text_search`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedgrad_cli.config.schema import ExportConfig
from embedgrad_cli.core.prompt.artifact import Artifact
from embedgrad_cli.core.prompt.nearest_text import NearestText, nearest_text
from embedgrad_cli.core.prompt.soft_prompt import relative_drift
from embedgrad_cli.evaluation.arms import ArmPrompt
from embedgrad_cli.evaluation.outcomes import grade_answers
from embedgrad_cli.evaluation.results import results_of, sample_lines
from embedgrad_cli.exports.text_search.search import SearchResult, TextSearch, TriedText
from embedgrad_cli.exports.text_search.workbench import Measurement, Texts
from embedgrad_cli.storage.files import write_atomically, write_json, write_json_lines
from embedgrad_cli.storage.record import Json, Record
from embedgrad_cli.storage.results_record import Results
from embedgrad_cli.terminal.progress import TestDisplay

WARNING = (
    "Nearest tokens are not meanings. An optimised prompt may do what its reading does not say, and the reading may "
    "not do what the prompt does; prompts near any given text can do anything (Khashabi et al., arXiv 2112.08348). "
    "Believe the accuracy below, not the words."
)


@dataclass(frozen=True, kw_only=True)
class ReadVector(Record):
    """A vector beside its seed's token and the nearest one; see `NearestText` for the numbers."""

    slot: int
    seed_id: int
    seed: str
    relative_drift: float
    nearest_id: int
    nearest: str
    cosine: float
    distance: float
    relative_distance: float


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write `prompt.txt` (with several slots `prompt.0.txt`, …), `text.json` and `samples.jsonl`.

    A search adds `searched.txt`.

    Raises: as `Measurement.open` and `TextSearch.run`; UserError if there is no text to read.
    """
    measurement = Measurement.open(config, artifact)
    nearest = nearest_text(artifact.prompt, measurement.model)
    texts = {"reading": nearest.texts}
    search = _search(measurement, config, nearest) if config.search.budget else None
    if search:
        texts["searched"] = search.texts
    seed, task = measurement.seed_texts, measurement.config.task
    prompts = {"seed": ArmPrompt(tuple(seed)), "optimized": ArmPrompt(tuple(seed), artifact.prompt)}
    prompts |= {name: ArmPrompt(tuple(of_slots)) for name, of_slots in texts.items()}
    arm_set = measurement.build_arms(measurement.splits.test, prompts)
    rows = arm_set.rows
    with TestDisplay(list(prompts)) as display:
        answers = measurement.answer(arm_set, display.arm)
    outcomes = {name: grade_answers(rows, of_arm, task) for name, of_arm in answers.items()}
    results = results_of(
        outcomes,
        rows,
        task,
        measurement.splits,
        split="test",
        num_skipped=len(arm_set.skipped),
        rendered=arm_set.rendered,
        model=measurement.model.path,
        pairs=_pairs(list(outcomes)),
    )
    for name, file in (("reading", "prompt"), ("searched", "searched")):
        _write_texts(folder, file, texts.get(name, []))
    texts = {"seed": seed, **texts}
    write_json_lines(folder / "samples.jsonl", sample_lines(answers, rows, outcomes))
    content: Json = {"format": "text", "warning": WARNING, "texts": texts}
    content["tokens"] = [token.to_json() for token in _tokens(artifact, nearest, measurement)]
    content |= results.to_json()
    if search:
        content["search"] = {**vars(config.search), "seed": config.seed, **search.to_json()}
    write_json(folder / "text.json", content)
    return _line(texts, results)


def _search(measurement: Measurement, config: ExportConfig, nearest: NearestText) -> SearchResult:
    """Begin with the seed's text or the nearest one. Equal texts are one start."""
    starts = {"seed": measurement.seed_texts}
    if nearest.texts != measurement.seed_texts:
        starts["reading"] = nearest.texts
    return TextSearch(measurement, config.search, config.seed, _print_validation).run(starts)


def _print_validation(tried: TriedText) -> None:
    print(
        f"search: step {tried.step}, {tried.evaluations} evaluations, validation accuracy {tried.accuracy:.1%}, "
        f"loss {tried.loss:.3f}: {' | '.join(tried.texts)!r}",
        file=sys.stderr,
    )


def _tokens(artifact: Artifact, nearest: NearestText, measurement: Measurement) -> list[ReadVector]:
    prompt, tokenizer = artifact.prompt, measurement.model.tokenizer
    columns: dict[str, Sequence[Any]] = {
        "slot": [number for number, ids in enumerate(prompt.slots.ids) for _ in ids],
        "seed_id": prompt.slots.flat_ids,
        "seed": [tokenizer.decode([token]) for token in prompt.slots.flat_ids],
        "relative_drift": relative_drift(prompt).tolist(),
        "nearest_id": nearest.ids,
        "nearest": [tokenizer.decode([token]) for token in nearest.ids],
        "cosine": nearest.cosine,
        "distance": nearest.distance,
        "relative_distance": nearest.relative_distance,
    }
    return [ReadVector(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each text with the seed, the vectors and, for a searched text, the reading."""
    return [(baseline, text) for text in names[2:] for baseline in names[: names.index(text)]]


def _write_texts(folder: Path, name: str, texts: Texts) -> None:
    numbers = [""] if len(texts) == 1 else [f".{number}" for number in range(len(texts))]
    for number, text in zip(numbers, texts, strict=False):
        write_atomically(folder / f"{name}{number}.txt", f"{text}\n".encode())


def _line(texts: Mapping[str, Texts], results: Results) -> str:
    shown = [
        f"{name} {arm.accuracy:.1%} ({arm.ci95[0]:.1%} to {arm.ci95[1]:.1%})" for name, arm in results.arms.items()
    ]
    read = "; ".join(f"{name}: {' | '.join(of_slots)!r}" for name, of_slots in texts.items())
    return f"{read}\n{WARNING}\n{results.num_examples} test examples: {', '.join(shown)}"
