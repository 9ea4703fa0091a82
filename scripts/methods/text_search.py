"""The product's search for the best text prompt (`embedgrad export format=text search.budget=N`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedgrad_cli.core.prompt.artifact import load_artifact
from embedgrad_cli.core.prompt.nearest_text import nearest_text
from embedgrad_cli.errors import UserError
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt
from embedgrad_cli.exports.text_search.search import SearchResult, TextSearch
from embedgrad_cli.exports.text_search.workbench import Measurement
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.tasks.load import Row

from .memory import StepMemory
from .ours import EmbedGrad, arm_of
from .problem import Method, Problem, weights_hash
from .records import CELL, VALIDATED, CellRecord, Trial, TriedText
from .settings import compose_command, quoted

FOUND = "search.json"


@dataclass(frozen=True)
class Searched(Method):
    """One search of so many forward evaluations, from the seed's text or from the reading of embedgrad's prompt.

    That prompt is the one that validation chose in the finished cell of `begins_with`.
    """

    budget: int = 0
    begins_with: EmbedGrad = EmbedGrad("embedgrad", "embedgrad")

    def tries(self) -> dict[str, float | None]:
        return {"search": None}

    def folder(self, problem: Problem) -> str:
        return f"{self.name}-{self.budget}"

    def variant(self, problem: Problem) -> str | None:
        return f"{self.budget:,} evaluations"

    def train(self, problem: Problem, lr: float | None, folder: Path) -> Trial:
        file = self._artifact(problem, folder.parents[1])
        lines = [f"artifact={quoted(str(file))}", "format=text", "output_dir=unused", "model.path=unused", "device=cpu"]
        config = compose_command("export", [*lines, f"search.budget={self.budget}", f"seed={problem.config.seed}"])
        artifact, memory, started = load_artifact(file), StepMemory(), time.perf_counter()
        with memory:
            measurement = Measurement.open(replace(config, model=problem.config.model), artifact)
            before = weights_hash(measurement.model.network)
            texts = {"seed": measurement.seed_texts, "reading": nearest_text(artifact.prompt, measurement.model).texts}
            starts = {name: of for name, of in texts.items() if name == "seed" or of != texts["seed"]}
            found = TextSearch(measurement, config.search, config.seed).run(starts)
        write_json(folder / FOUND, found)
        best = max(found.history, key=lambda tried: tried.rank)
        text = TriedText(text=" | ".join(found.texts), accuracy=best.accuracy, loss=best.loss)
        write_json(folder / VALIDATED, {"texts": [text.to_json()]})
        return Trial(
            lr=None,
            accuracy=best.accuracy,
            loss=best.loss,
            step=best.step,
            parameters=0,
            seconds=time.perf_counter() - started,
            peak_bytes=memory.peak,
            weights_before=before,
            weights_after=weights_hash(measurement.model.network),
        )

    def arm(self, problem: Problem, folder: Path, rows: Sequence[Row]) -> Arm:
        return arm_of(problem, rows, ArmPrompt(tuple(SearchResult.read(folder / FOUND).texts)))

    def _artifact(self, problem: Problem, folder: Path) -> Path:
        """Raises `UserError` where embedgrad's cell is not finished."""
        cell = folder / self.begins_with.folder(problem) / CELL
        if not cell.exists():
            raise UserError(f"{self.name} begins with embedgrad's prompt, and that cell is not finished: run it first.")
        chosen = CellRecord.read(cell).chosen
        assert chosen is not None
        return cell.parent / f"lr-{chosen.lr:g}" / "prompt.safetensors"
