"""Arms without a training: no prompt, the seed prompt, and the best of several instructions that a person wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.errors import UserError
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt, build_arms
from embedgrad_cli.storage.files import write_json
from embedgrad_cli.tasks.load import Row

from .answers import graded
from .ours import arm_of
from .problem import Method, Problem
from .records import VALIDATED, Trial, TriedText

INSTRUCTIONS = Path(__file__).with_name("instructions.yaml")


class Untrained(Method):
    """`none`, `bare` or `seed`, as the product defines them."""

    shares_answers = True

    def train(self, problem: Problem, lr: float | None, folder: Path) -> Trial:
        raise NotImplementedError("there is nothing to train")

    def arm(self, problem: Problem, folder: Path, rows: Sequence[Row]) -> Arm:
        seeds = seeds_of(problem.config.prompt) if self.name == "seed" else None
        return arm_of(problem, rows, ArmPrompt(seeds, is_bare=self.name == "bare"))


@dataclass(frozen=True)
class Instructions(Untrained):
    """The best in validation of the instructions for the task's family, the seed prompt among them.

    `file` holds a list of one's own instead of those of `instructions.yaml`.
    """

    file: Path | None = None

    def texts(self, problem: Problem) -> list[str]:
        """The seed prompt and the instructions.

        Raises:
            UserError: there are none for this task.
        """
        (seed,) = seeds_of(problem.config.prompt)
        return list(dict.fromkeys([seed, *instructions_for(problem.config.task.name, self.file)]))

    def folder(self, problem: Problem) -> str:
        digest = hashlib.sha256(json.dumps(self.texts(problem)).encode()).hexdigest()
        return f"{self.name}-{digest[:8]}"

    def arm(self, problem: Problem, folder: Path, rows: Sequence[Row]) -> Arm:
        """Validate every text, and write down what that said, the best first."""
        model = problem.fresh_model()
        tried = [validated(problem, model, text, folder / "validation.jsonl") for text in self.texts(problem)]
        tried.sort(key=lambda one: (-one.accuracy, one.loss))
        write_json(folder / VALIDATED, {"texts": [one.to_json() for one in tried]})
        prompt = {"arm": ArmPrompt((tried[0].text,))}
        return build_arms(rows, model, problem.template, problem.config.task, prompt).arms["arm"]


def instructions_for(task: str, file: Path | None = None) -> list[str]:
    """Those that `instructions.yaml` has for a task, or the list in another file.

    Raises:
        UserError: there is none.
    """
    content = yaml.safe_load((file or INSTRUCTIONS).read_text(encoding="utf-8"))
    if file is not None:
        if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
            raise UserError(f"{file}: a list of texts was expected, one instruction each.")
        return content
    for family in content.values():
        if task in family["tasks"]:
            return family["instructions"]
    raise UserError(
        f"there are no instructions for task={task} in {INSTRUCTIONS.name}. Give a list of your own, "
        "--instructions FILE, or leave the method out."
    )


def validated(problem: Problem, model: LanguageModel, text: str, log: Path) -> TriedText:
    """A text on the validation rows, as a training measures it."""
    config, rows = problem.config, problem.splits.validation
    prompt = {"arm": ArmPrompt((text,))}
    arm = build_arms(rows, model, problem.template, config.task, prompt, with_targets=True).arms["arm"]
    outcomes = graded(arm, rows, config, log)
    loss = arm.forward.mean_loss(arm.examples, arm.prompt, config.evaluation.batch_size)
    return TriedText(text=text, accuracy=sum(o.correct for o in outcomes) / len(outcomes), loss=loss)
