"""What an artifact says about itself: the JSON under its one metadata key, `embedgrad`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from embedgrad_cli.storage.arm_records import ArmSummary, Comparison
from embedgrad_cli.storage.gguf_files import GgufRecord
from embedgrad_cli.storage.quantization import QuantizationRecord
from embedgrad_cli.storage.record import CONVERTER, Json, Record
from embedgrad_cli.storage.results_record import Drift, Elsewhere, Results, Validation
from embedgrad_cli.storage.structure import dataclass_hook


@dataclass(frozen=True, kw_only=True)
class SeedRecord(Record):
    """The seed prompt: its text, or one text per `{prompt.N}`, and the token ids slot by slot."""

    text: str | list[str]
    token_ids: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class MessageRecord(Record):
    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class TemplateRecord(Record):
    """The conversation that the prompt stands in; worked examples come on top of it."""

    messages: list[MessageRecord]
    text: str


@dataclass(frozen=True, kw_only=True)
class WorkedExampleRecord(Record):
    query: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Fingerprint(Record):
    """sha256 of what must not differ between the model a prompt was made for and the one it is used with."""

    config: str
    tokenizer: str
    seed_embedding: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRecord(Record):
    """`chat_template_date` is the day that the chat template was told; None where it writes no date.

    `gguf` is the file that the weights came from, if they came from a GGUF file. `quantization` is how they were packed
    while the prompt was made, if they were.
    """

    path: str
    revision: str | None
    fingerprint: Fingerprint
    chat_template_date: str | None = None
    gguf: GgufRecord | None = None
    quantization: QuantizationRecord | None = None


@dataclass(frozen=True, kw_only=True)
class TestSummary(Record):
    """What the test said of a prompt. `num_examples` is absent from artifacts of version 0.1.0.

    `added_system_turns` are those that the chat template wrote by itself, by arm; None if there is none.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    num_examples: int | None = None
    arms: dict[str, ArmSummary]
    comparison: Comparison | None
    added_system_turns: dict[str, str] | None = None

    @classmethod
    def of(cls, results: Results) -> TestSummary:
        rendered = (results.rendered or {}).items()
        added = {name: row.added_system_turn for name, row in rendered if row.added_system_turn}
        count, arms, comparison = results.num_examples, results.arms, results.main_comparison
        return cls(num_examples=count, arms=arms, comparison=comparison, added_system_turns=added or None)


@dataclass(frozen=True, kw_only=True)
class PromptMetrics(Record):
    """What is known of a prompt: the validation that chose it and, once the run was complete, its test, how far it is
    from its seed, and what it changes outside of its task."""

    validation: Validation | None = None
    test: TestSummary | None = None
    drift: Drift | None = None
    elsewhere: Elsewhere | None = None


@dataclass(frozen=True, kw_only=True)
class SeenRows(Record):
    """What the tensor `seen_rows` holds: digests of the rows that trained and selected the prompt.

    A row that is none of them is taken for one with a chance of at most `2**-bits`, twice that `with_choices`: then
    some rows are known by their query and their choices, and not by their query alone. See `tasks.row_filter`.
    """

    bits: int
    num_digests: int
    num_train: int
    num_validation: int
    num_examples: int
    with_choices: bool


@dataclass(frozen=True, kw_only=True)
class RecordedHub(Record):
    path: str | None
    name: str | None


@dataclass(frozen=True, kw_only=True)
class RecordedTask(Record):
    name: str
    kind: str
    data_dir: str | None
    hub: RecordedHub
    fewshot_style: Literal["text", "turns"] = "text"
    max_new_tokens: int
    stop: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedModel(Record):
    """`template` says whether the prompt stands in a chat template or in plain text; see `ModelConfig`."""

    path: str
    revision: str | None
    template: Literal["auto", "chat", "plain"]
    chat_template_kwargs: Json | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedOptimizer(Record):
    name: str
    lr: float


@dataclass(frozen=True, kw_only=True)
class RecordedTraining(Record):
    steps: int
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class RecordedSettings(Record):
    """The settings of the run that made a prompt: all in `everything`, and those that are read one by one."""

    seed: int
    model: RecordedModel
    task: RecordedTask
    optimizer: RecordedOptimizer
    train: RecordedTraining
    everything: Json = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Json) -> RecordedSettings:
        """The settings of a run, as nested dicts."""
        return cls.from_json(settings, "the settings")


@dataclass(frozen=True, kw_only=True)
class ArtifactMetadata(Record):
    """All that an artifact says about itself. Holds no time and no place of the run: equal runs give equal bytes.

    `model.revision` and `data_revision` are the commits that model and data were read at, where they came from the hub.
    `overrides` is the command line that made the prompt, in Hydra's grammar, without what changes no result; absent
    where no command line did. Artifacts of version 0.1.0 have neither that nor `seen_rows` nor `worked_examples`: their
    `template` has the examples in it, and their `config` the template without them. `demonstrations` are the rows of
    train that the seed's text shows; absent where it shows none.
    """

    format_version: int
    seed: SeedRecord
    template: TemplateRecord
    worked_examples: list[WorkedExampleRecord] | None = None
    demonstrations: list[WorkedExampleRecord] | None = None
    model: ModelRecord
    task: str
    split_hash: str
    data_revision: str | None = None
    seen_rows: SeenRows | None = None
    metrics: PromptMetrics
    libraries: dict[str, str]
    config: RecordedSettings
    overrides: list[str] | None = None

    @property
    def settings(self) -> Json:
        """All settings of the run, as nested dicts, with the commits in place of the revisions that were asked for.

        The day that its chat template was told is a setting among them.
        """
        settings = {"template": self.template.to_json(), **self.config.everything}
        if self.model.revision:
            settings["model"] = {**settings["model"], "revision": self.model.revision}
        if self.model.chat_template_date:
            settings["model"] = {**settings["model"], "chat_template_date": self.model.chat_template_date}
        if self.data_revision:
            hub = {**settings["task"]["hub"], "revision": self.data_revision}
            settings["task"] = {**settings["task"], "hub": hub}
        return settings


# Settings have many more keys than the parts that are read one by one, and other versions have other ones.
for _part in (RecordedHub, RecordedTask, RecordedModel, RecordedOptimizer, RecordedTraining):
    CONVERTER.register_structure_hook(_part, dataclass_hook(_part, CONVERTER, closed=False))
_named_parts = dataclass_hook(RecordedSettings, CONVERTER, closed=False)


def _structure_settings(content: Any, kind: type[RecordedSettings]) -> RecordedSettings:
    return replace(_named_parts(content, kind), everything=content)


CONVERTER.register_structure_hook(RecordedSettings, _structure_settings)
CONVERTER.register_unstructure_hook(RecordedSettings, lambda settings: settings.everything)
