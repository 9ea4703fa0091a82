"""Several prompts, the same rows: every row rendered with each arm's prompt, encoded, and ready to be answered.

The rows of an arm have a prefix that they share, their trunk; see `core.passes.forward`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from embedgrad_cli.config.schema import TemplateConfig
from embedgrad_cli.config.task_schema import TaskConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.trunk_check import why_no_trunk
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.answer_tokens import Choices, encode_choices
from embedgrad_cli.core.text.encoding import Encoded, encode
from embedgrad_cli.core.text.marked_tokens import Example, Slots, token_ids
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.core.text.template_additions import added_by
from embedgrad_cli.errors import ArtifactError, DataError
from embedgrad_cli.storage.results_record import RenderedRow
from embedgrad_cli.tasks.load import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmPrompt:
    """What an arm puts into the template.

    Args:
        seeds: the texts in its slots; None leaves the prompt out.
        trained: vectors that stand in the slots instead of the texts' own embeddings.
        is_bare: plain text, even if the model has a chat template.
    """

    seeds: tuple[str, ...] | None = None
    trained: SoftPrompt | None = None
    is_bare: bool = False


@dataclass(frozen=True)
class Arm:
    """One prompt under evaluation: rows rendered with it, and the vectors that stand in its slots.

    `slow_because` says why its examples share no trunk, if they do not.
    """

    name: str
    forward: Forward
    examples: list[Example]
    options: list[tuple[str, ...]]  # each row's choices; empty where answers are generated
    choices: dict[tuple[str, ...], Choices]  # the token ids of these, by `options`
    prompt: SoftPrompt
    slow_because: str | None = None

    def prompt_hashes(self) -> list[str]:
        """A sha256 per row of exactly what the model reads: equal hashes, equal input.

        Hashed are the token ids, in decimal with blanks between, then the float32 bytes of the vectors in the slots,
        unless they are the tokens' own embeddings.
        """
        vectors, slots = self.prompt.vectors.detach(), self.prompt.slots
        moved = b"" if torch.equal(vectors, self.prompt.seed) else vectors.cpu().contiguous().numpy().tobytes()
        ids = (token_ids(example.tokens, slots) for example in self.examples)
        return [hashlib.sha256(" ".join(map(str, of_row)).encode() + moved).hexdigest() for of_row in ids]


@dataclass(frozen=True)
class ArmSet:
    """The arms by name, the rows that every one of them answers, and the ids of the rows left out of all.

    `rendered` is what the model reads of the first row under every arm.
    """

    rows: list[Row]
    skipped: list[str]
    arms: dict[str, Arm]
    rendered: dict[str, RenderedRow]

    @property
    def slow_arms(self) -> dict[str, str] | None:
        """Why arms are computed without a shared prefix; None where none is."""
        return {name: arm.slow_because for name, arm in self.arms.items() if arm.slow_because} or None


def build_arms(
    rows: Sequence[Row],
    model: LanguageModel,
    template: TemplateConfig,
    task: TaskConfig,
    prompts: Mapping[str, ArmPrompt],
    shares_trunk: bool | None = None,
    with_targets: bool = False,
) -> ArmSet:
    """Render and encode the same rows for every arm; arms with the same texts share one encoding.

    Arms differ in length, so a row may fit the model's context under one and not under another. Such a row is an
    error or, with `task.too_long=skip`, left out of all arms alike.

    Args:
        prompts: what each arm puts into the template, by the arm's name.
        shares_trunk: whether the trunk is computed once; None tries it out for every arm.
        with_targets: a loss will be taken on the rows' targets: they end as in training, and must fit the context.

    Raises:
        DataError: a row is too long, or no row is left.
        TemplateError: the template cannot carry a prompt.
        ArtifactError: in this template the slots do not hold the tokens that an arm's vectors are for.
    """
    keys = {name: (prompt.seeds, model.is_chat and not prompt.is_bare) for name, prompt in prompts.items()}
    templates = {
        key: PromptTemplate(template, None if key[0] is None else list(key[0]), model.tokenizer, key[1])
        for key in dict.fromkeys(keys.values())
    }
    for written in {one.prefix.strip() for one in templates.values()} - {""}:
        log.info("the chat template begins every answer with %r, and every arm is given it", written)
    sets = dict.fromkeys(row.choices for row in rows) if task.kind == "choice" else {}
    kept, readings, reasons = list(rows), dict[_Key, _Reading](), dict[_Key, str | None]()
    for key, prompt_template in templates.items():
        readings[key] = _read(kept, prompt_template, model, task, sets, with_targets)
        skipped = set(readings[key].encoded.skipped)
        kept = [row for row in kept if row.id not in skipped]
    kept_ids, arms, rendered = {row.id for row in kept}, {}, {}
    options = [row.choices if task.kind == "choice" else () for row in kept]
    for name, prompt in prompts.items():
        key, reading = keys[name], readings[keys[name]]
        examples = [example for example in reading.encoded.examples if example.id in kept_ids]
        vectors = _vectors(name, prompt, reading.encoded.slots, model)
        if shares_trunk is None and key not in reasons:
            reasons[key] = why_no_trunk(model, examples, vectors)
        reason = reasons.get(key)
        forward = Forward(model, examples, reason is None if shares_trunk is None else shares_trunk)
        arms[name] = Arm(name, forward, examples, options, reading.choices, vectors, reason)
        rendered[name] = _rendered(kept[0], reading.prompt_template, prompt)
    return ArmSet(kept, [row.id for row in rows if row.id not in kept_ids], arms, rendered)


_Key = tuple[tuple[str, ...] | None, bool]  # the texts in the slots, and whether the chat template is around them


@dataclass(frozen=True)
class _Reading:
    """Rows as all arms with the same texts read them, whatever vectors stand in their slots."""

    prompt_template: PromptTemplate
    encoded: Encoded
    choices: dict[tuple[str, ...], Choices]


def _read(
    rows: Sequence[Row],
    prompt_template: PromptTemplate,
    model: LanguageModel,
    task: TaskConfig,
    sets: Iterable[tuple[str, ...]],
    with_targets: bool,
) -> _Reading:
    """Args: sets: of choices, one for each row that has other ones."""
    choices = {names: encode_choices(names, prompt_template) for names in sets}
    lengths = (len(ids) for one in choices.values() for ids in one.ids)
    encoded = encode(
        rows,
        prompt_template,
        model,
        append_end_token=with_targets and task.kind == "generation",
        reserve=max(lengths, default=1),
        fits_target=with_targets,
        too_long=task.too_long,
    )
    if not encoded.examples:
        raise DataError(
            f"task {task.name}: no example of this split fits the model's context of {model.max_length} tokens. "
            "Take a model with a longer context or shorter rows."
        )
    return _Reading(prompt_template, encoded, choices)


def _rendered(row: Row, prompt_template: PromptTemplate, prompt: ArmPrompt) -> RenderedRow:
    rendering, addition = prompt_template.render(row.query), added_by(prompt_template)
    is_turn = addition is not None and addition.is_system_turn
    return RenderedRow(
        row=row.id,
        text=rendering.text,
        slots=[list(slot) for slot in rendering.slots],
        vectors=prompt.trained.slots.num_tokens if prompt.trained else None,
        added_system_turn=addition.text if addition and is_turn else None,
        added_text=addition.text if addition and not is_turn else None,
    )


def _vectors(name: str, prompt: ArmPrompt, slots: Slots, model: LanguageModel) -> SoftPrompt:
    """The vectors of an arm: trained ones, or the embeddings of its texts, or none."""
    if prompt.trained is None:
        return SoftPrompt.from_seed(slots, model)
    if prompt.trained.slots != slots:
        was, now = (
            [model.tokenizer.convert_ids_to_tokens(list(ids)) for ids in either.ids]
            for either in (prompt.trained.slots, slots)
        )
        raise ArtifactError(
            f"the arm {name} holds vectors for the tokens {was}, but in this template and with this prompt.text the "
            f"slots hold {now}. Use the artifact's own template and prompt."
        )
    return prompt.trained
