"""What models answer, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.generation import widest
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import GREEDY, REFILLED, Decoder, batches_by_length
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.answer_tokens import Choices
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.stop_strings import StopStrings
from embedgrad_cli.evaluation.answer_log import Answer, AnswerLog, Progress, from_all, unseen
from embedgrad_cli.evaluation.arms import Arm, ArmSet
from embedgrad_cli.evaluation.ranking import likeliest
from embedgrad_cli.parallel.ranks import ALONE, Ranks
from embedgrad_cli.storage.interrupts import stop_if_asked
from embedgrad_cli.storage.sample_records import Ending
from embedgrad_cli.tasks.score_rule import Rule

KEPT_DECIMALS = 6  # of a log-likelihood: what float32 can tell apart


MakeDecoder = Callable[[Forward, SoftPrompt], Decoder]


def answer_arms(
    arm_set: ArmSet,
    task: TaskConfig,
    batch_size: int,
    log: AnswerLog,
    progress: Callable[[str, int], Progress],
    sampling: Sampling = GREEDY,
    ranks: Ranks = ALONE,
    decoder_of: MakeDecoder = Decoder,
) -> dict[str, list[list[Answer]]]:
    """Let every arm answer every row; what the log holds already is not computed again.

    Args:
        progress: called with an arm's name and its number of rows as it begins; gives the arm's own.

    Raises:
        StopAsked: as `answer_rows`.
    """
    return {
        name: answer_rows(arm, task, batch_size, log, sampling, progress(name, len(arm.examples)), ranks, decoder_of)
        for name, arm in arm_set.arms.items()
    }


def answer_rows(
    arm: Arm,
    task: TaskConfig,
    batch_size: int,
    log: AnswerLog,
    sampling: Sampling = GREEDY,
    progress: Progress = unseen,
    ranks: Ranks = ALONE,
    decoder_of: MakeDecoder = Decoder,
) -> list[list[Answer]]:
    """Let an arm answer every row whose answers are not in the log yet.

    Batches depend on the rows alone, and a batch is answered whole or not at all: so the numbers of a resumed run are
    those of an uninterrupted one. A batch of generated answers has `REFILLED` times as many rows as are computed at
    once. Ranks share each batch, which then has as many rows for each of them, and all of them get all answers.

    Args:
        batch_size: answers computed at once, by each rank.
        progress: called with the number of rows done, batch by batch.

    Returns: the answers to each row, in the order of the rows.

    Raises:
        StopAsked: at a safe point; finished batches are in the log.
        EndedElsewhere: see `Ranks.together`.
    """
    keys = list(zip((example.id for example in arm.examples), arm.prompt_hashes(), strict=True))
    decoder = decoder_of(arm.forward, arm.prompt)
    rows_at_once = max(batch_size // sampling.num_samples, 1) * ranks.count

    def answer(numbers: Sequence[int]) -> list[list[Answer]]:
        examples = [arm.examples[i] for i in numbers]
        started = time.perf_counter()
        if not examples:
            return []
        if task.kind == "choice":
            outputs = _choose(decoder, examples, arm.choices[arm.options[numbers[0]]], task.score)
        else:
            outputs = _generate(decoder, examples, task, batch_size, sampling)
        seconds = round((time.perf_counter() - started) / (len(numbers) * sampling.num_samples), 4)
        return [
            [Answer(*keys[i], sample, seconds=seconds, **vars(output)) for sample, output in enumerate(of_row)]
            for i, of_row in zip(numbers, outputs, strict=True)
        ]

    for numbers in _batches(arm, task, rows_at_once * (1 if task.kind == "choice" else REFILLED)):
        is_known = all(keys[i] in log for i in numbers)
        if not is_known:
            own = [numbers[i] for i in ranks.share([len(arm.examples[n].tokens) for n in numbers])]
            log.add(from_all(ranks, partial(answer, own)))
            ranks.together(stop_if_asked)
        progress(len(numbers), is_known)
    return [log[key] for key in keys]


@dataclass(frozen=True)
class Output:
    """What a model gave for one answer: the fields of an `Answer` that come from it."""

    output: str
    tokens: int = 0
    scores: dict[str, float] | None = None
    choice_tokens: dict[str, int] | None = None
    with_end: bool | None = None
    ending: Ending | None = None


def _batches(arm: Arm, task: TaskConfig, batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length. Rows in a batch have the same choices, so these are scored together."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, options in enumerate(arm.options):
        groups.setdefault(options, []).append(number)
    for options, numbers in groups.items():
        is_choice = task.kind == "choice"
        following = max(map(len, arm.choices[options].ids)) if is_choice else widest(0, task.max_new_tokens)
        for batch in batches_by_length(arm.forward, [arm.examples[n] for n in numbers], batch_size, following):
            yield [numbers[index] for index in batch]


def _choose(decoder: Decoder, examples: Sequence[Example], choices: Choices, rule: Rule) -> list[list[Output]]:
    """The best choice of each row, by the scores as they are kept: so they can be ranked again by another rule."""
    num_tokens = {name: len(ids) for name, ids in zip(choices.names, choices.ids, strict=True)}
    outputs = []
    for scores in decoder.score_choices(examples, choices.ids):
        kept = {name: round(score, KEPT_DECIMALS) for name, score in zip(choices.names, scores, strict=True)}
        best = likeliest(kept, num_tokens, rule)
        outputs.append([Output(best, scores=kept, choice_tokens=num_tokens, with_end=choices.with_end)])
    return outputs


def _generate(
    decoder: Decoder, examples: Sequence[Example], task: TaskConfig, at_once: int, sampling: Sampling
) -> list[list[Output]]:
    stops = StopStrings(tuple(task.stop or ()), decoder.forward.model.tokenizer)
    answers = decoder.generate(examples, task.max_new_tokens, at_once, sampling, stops.texts)
    return [
        # What the template writes around an answer, a blank or a line break, is not the answer's.
        [Output(stops.text_before(one.ids).strip(), len(one.ids), ending=one.ending) for one in of_row]
        for of_row in answers
    ]
