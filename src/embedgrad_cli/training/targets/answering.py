"""A prompt answers training rows, and its answers become targets."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.config.teacher import is_artifact, teacher_text
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.ending import GeneratedAnswer
from embedgrad_cli.core.passes.engine import OWN, Engine
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.generation import widest
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import REFILLED, batches_by_length
from embedgrad_cli.core.prompt.artifact import check_fingerprint, load_artifact
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.stop_strings import StopStrings
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt, build_arms
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.training.targets.targets import Material

T = TypeVar("T")
SETTING = "objective.teacher"  # as messages name the teacher's arm
STRIDE = 1_000_003  # between the seeds of two rounds


@dataclass(frozen=True)
class Sampled:
    """An answer to a training row: its tokens, how it ended, and the text that a grader reads, as in the test."""

    answer: GeneratedAnswer
    text: str


def seed_of_round(seed: int, number: int) -> int:
    """Seeds what is drawn in a round, or in a step, from 0: so that no two draw alike. The first has the run's seed."""
    return seed + STRIDE * number


@dataclass(frozen=True)
class Answering:
    """A prompt that answers training rows, `sampling.num_samples` times each.

    Args:
        at_once: answers that grow at the same time, at most, on each rank.
    """

    forward: Forward
    prompt: SoftPrompt
    task: TaskConfig
    at_once: int
    sampling: Sampling
    ranks: Ranks = ALONE
    engine: Engine = OWN

    def batches(
        self,
        examples: Sequence[Example],
        use: Callable[[Sequence[Example], list[list[Sampled]]], list[T]],
        known: Container[str] = (),
    ) -> Iterator[list[T]]:
        """Answer the examples as in the test, with `task.max_new_tokens` and `task.stop`, batch by batch.

        Batches depend on the examples and the number of ranks, what is drawn for an example on the example alone.

        Args:
            use: what comes of examples and the answers to each, one thing per example; with several ranks, which share
                each batch, something that JSON can write. Each rank uses its own answers.
            known: ids; a batch whose examples are all known is left out.

        Returns: what came of all examples of a batch, the same on every rank.

        Raises:
            StopAsked: between two tokens.
            EndedElsewhere: see `Ranks.together`. Where answering or use failed here, what they raised.
        """
        decoder = self.engine.decoder(self.forward, self.prompt)
        stops = StopStrings(tuple(self.task.stop or ()), self.forward.model.tokenizer)
        rows = max(self.at_once // self.sampling.num_samples, 1) * REFILLED * self.ranks.count

        def answer(batch: Sequence[Example]) -> list[T]:
            if not batch:
                return []
            answers = decoder.generate(batch, self.task.max_new_tokens, self.at_once, self.sampling, stops.texts)
            texts = [[stops.text_before(one.ids).strip() for one in of_row] for of_row in answers]
            return use(batch, [list(map(Sampled, *of_row)) for of_row in zip(answers, texts, strict=True)])

        for numbers in batches_by_length(self.forward, examples, rows, widest(0, self.task.max_new_tokens)):
            batch = [examples[number] for number in numbers]
            if all(example.id in known for example in batch):
                continue
            own = [batch[i] for i in self.ranks.share([len(example.tokens) for example in batch])]
            yield [one for part in self.ranks.gather(partial(answer, own)) for one in part]


def teacher_arm(material: Material, teacher: str) -> Arm:
    """The training rows under the teacher's prompt, in the run's own template.

    Raises:
        UserError, ArtifactError: the teacher cannot be read, or was made for another model or template.
        DataError: a row does not fit the model's context behind it.
    """
    prompt = teacher_prompt(teacher, material.model)
    arm_set = build_arms(material.rows, material.model, material.template, material.config.task, {SETTING: prompt})
    return arm_set.arms[SETTING]


def teacher_prompt(teacher: str, model: LanguageModel) -> ArmPrompt:
    """What stands in the prompt's place when the teacher answers.

    Raises:
        UserError, ArtifactError: the teacher cannot be read, or was made for another model.
    """
    if not is_artifact(teacher):
        return ArmPrompt((teacher_text(teacher),))
    artifact = load_artifact(Path(teacher).expanduser())
    check_fingerprint(artifact, model, teacher)
    return ArmPrompt(as_texts(artifact.metadata.seed.text), artifact.prompt.to(model.device))


def as_target(answer: GeneratedAnswer, prompt_template: PromptTemplate) -> tuple[int, ...]:
    """The tokens of an answer up to what ended it: the end of its turn, or a stop string.

    An answer that was cut by its limit has no end, so a prompt is not taught to end there.
    """
    end = prompt_template.turn_end.token_id
    return (*answer.ids, end) if answer.ending == "end_of_turn" and end is not None else tuple(answer.ids)


def with_targets(example: Example, targets: Sequence[tuple[int, ...]]) -> list[Example]:
    """An example with each of these targets in place of its own; they are told apart by their ids."""
    return [replace(example, id=f"{example.id}#{number}", target=ids) for number, ids in enumerate(targets)]
