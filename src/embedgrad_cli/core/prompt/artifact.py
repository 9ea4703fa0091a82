"""The `.safetensors` file that an optimised prompt is: vectors, seed, and where they come from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from embedgrad_cli.config.schema import Message, ModelConfig, OptimizeConfig, TemplateConfig, with_effect
from embedgrad_cli.config.task_schema import WorkedExample
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.few_shot import with_examples
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.storage.artifact_header import FORMAT_VERSION, read_header
from embedgrad_cli.storage.artifact_metadata import (
    ArtifactMetadata,
    MessageRecord,
    ModelRecord,
    PromptMetrics,
    RecordedSettings,
    SeedRecord,
    TemplateRecord,
    WorkedExampleRecord,
)
from embedgrad_cli.storage.files import write_atomically
from embedgrad_cli.storage.quantization import QuantizationRecord
from embedgrad_cli.tasks.row_filter import SEEN_ROWS, RowFilter, read_seen_rows
from embedgrad_cli.tasks.rows import Row

log = logging.getLogger(__name__)

SEED_ROWS = "embedding rows of the seed's tokens"
GGUF_FILE = "the GGUF file that the weights are from"
LIBRARIES = ("embedgrad", "torch", "transformers")


@dataclass(frozen=True)
class Artifact:
    """An artifact in memory. `seen_rows` are the rows that trained and selected it, where it knows them."""

    prompt: SoftPrompt
    metadata: ArtifactMetadata
    seen_rows: RowFilter | None = None


def artifact_metadata(
    prompt: SoftPrompt,
    model: LanguageModel,
    config: OptimizeConfig,
    worked_examples: Sequence[WorkedExample],
    split_hash: str,
    metrics: PromptMetrics,
    overrides: Sequence[str] | None = None,
    data_revision: str | None = None,
    demonstrations: Sequence[Row] = (),
) -> ArtifactMetadata:
    """What an artifact says about itself.

    Args:
        worked_examples: that stand in front of every query.
        split_hash: names the rows that trained, selected and tested the prompt.
        overrides: the command line that made the prompt, if one did.
        data_revision: the commit of the data set, if it came from the hub.
        demonstrations: rows of train that stand in the seed's text.
    """
    settings = {key: value for key, value in with_effect(asdict(config)).items() if key != "template"}
    fingerprint = replace(model.fingerprint, seed_embedding=_hash(prompt.seed))
    return ArtifactMetadata(
        format_version=FORMAT_VERSION,
        seed=SeedRecord(text=config.prompt.text, token_ids=[list(ids) for ids in prompt.slots.ids]),
        template=template_record(config.template),
        worked_examples=_example_records(worked_examples),
        demonstrations=_example_records(demonstrations) or None,
        model=ModelRecord(
            path=model.path,
            revision=model.revision,
            fingerprint=fingerprint,
            chat_template_date=model.chat_template_date,
            gguf=model.gguf,
            quantization=model.quantization,
        ),
        task=config.task.name,
        split_hash=split_hash,
        data_revision=data_revision,
        metrics=metrics,
        libraries=_libraries(config.engine),
        config=RecordedSettings.of(settings),
        overrides=None if overrides is None else list(overrides),
    )


def _libraries(engine: str | None) -> dict[str, str]:
    """The versions of what made a prompt, the engine that answered included."""
    own = {name: version(name) for name in LIBRARIES}
    return own if engine is None else {**own, engine: import_module(engine).__version__}


def _example_records(examples: Iterable[WorkedExample | Row]) -> list[WorkedExampleRecord]:
    return [WorkedExampleRecord(query=example.query, target=example.target) for example in examples]


def template_record(template: TemplateConfig) -> TemplateRecord:
    messages = [MessageRecord(role=message.role, content=message.content) for message in template.messages]
    return TemplateRecord(messages=messages, text=template.text)


def recorded_template(metadata: ArtifactMetadata) -> TemplateConfig:
    """The template that a prompt was optimised in, worked examples included."""
    messages = [Message(message.role, message.content) for message in metadata.template.messages]
    examples = [WorkedExample(example.query, example.target) for example in metadata.worked_examples or []]
    return with_examples(TemplateConfig(messages, metadata.template.text), examples, metadata.config.task.fewshot_style)


def save_artifact(
    path: Path, prompt: SoftPrompt, metadata: ArtifactMetadata, seen_rows: RowFilter | None = None
) -> None:
    """Write the artifact whole or not at all. One slot is `soft_prompt`; several are `soft_prompt.0`, …"""
    vectors, seeds = (prompt.split(t.detach().cpu()) for t in (prompt.vectors, prompt.seed))
    names = [""] if len(vectors) == 1 else [f".{i}" for i in range(len(vectors))]
    tensors = {f"soft_prompt{name}": t.contiguous() for name, t in zip(names, vectors, strict=True)}
    tensors |= {f"seed_embedding{name}": t.contiguous() for name, t in zip(names, seeds, strict=True)}
    if seen_rows:
        tensors[SEEN_ROWS] = torch.frombuffer(bytearray(seen_rows.to_bytes()), dtype=torch.uint8)
    metadata = replace(metadata, seen_rows=seen_rows.parameters if seen_rows else None)
    write_atomically(path, save(tensors, {"embedgrad": json.dumps(metadata.to_json(), sort_keys=True)}))


def load_artifact(path: Path) -> Artifact:
    """Read an artifact onto the CPU.

    Raises:
        ArtifactError: the file is missing, truncated, no safetensors file, not one of embedgrad's, or holds NaN.
    """
    metadata = read_header(path)
    ids = tuple(tuple(slot) for slot in metadata.seed.token_ids)
    names = [""] if len(ids) == 1 else [f".{i}" for i in range(len(ids))]
    try:
        with safe_open(path, framework="pt") as file:
            vectors = torch.cat([file.get_tensor(f"soft_prompt{name}") for name in names])
            seed = torch.cat([file.get_tensor(f"seed_embedding{name}") for name in names])
        seen_rows = read_seen_rows(path, metadata)
    except Exception as error:
        raise ArtifactError(
            f"artifact={path} cannot be read: {error}. Expected are the tensors soft_prompt, seed_embedding "
            "and, where its metadata says so, seen_rows; write the file again with `embedgrad optimize`."
        ) from error
    expected = sum(len(slot) for slot in ids)
    if not (vectors.ndim == 2 and vectors.shape == seed.shape and len(vectors) == expected):
        raise ArtifactError(
            f"artifact={path} is damaged: soft_prompt is {list(vectors.shape)} and seed_embedding "
            f"{list(seed.shape)}, but the seed has {expected} tokens. Write it again with `embedgrad optimize`."
        )
    for name, tensor in (("soft_prompt", vectors), ("seed_embedding", seed)):
        if not bool(tensor.isfinite().all()):
            raise ArtifactError(
                f"artifact={path} is damaged: {name} holds NaN or infinity in {int((~tensor.isfinite()).sum())} of "
                f"{tensor.numel()} numbers. Write it again with `embedgrad optimize`."
            )
    return Artifact(SoftPrompt(Slots(ids), seed, vectors), metadata, seen_rows)


def check_fingerprint(artifact: Artifact, model: LanguageModel, path: str) -> None:
    """Refuse a model the prompt was not made for: another config, another tokenizer, other embeddings.

    Embedding rows are compared as numbers, not by hash, so that a model may be loaded in another precision.

    Raises:
        ArtifactError: names both identities and what differs.
    """
    differs = differences(artifact, model)
    if not differs and not _same_rows(artifact.prompt, model):
        differs = [SEED_ROWS]
    refuse_other_model(artifact, model, path, differs)


def told_as_in_training(config: ModelConfig, metadata: ArtifactMetadata) -> ModelConfig:
    """A model's settings with what an artifact's chat template was told: its arguments and, where known, its day."""
    day = metadata.model.chat_template_date or config.chat_template_date
    told = metadata.config.model.chat_template_kwargs
    return replace(config, chat_template_kwargs=told, chat_template_date=day)


def warn_undated(artifact: Artifact, model: LanguageModel, path: str) -> None:
    """Say that nobody knows the day of an artifact's chat template any more: an earlier version made it."""
    if model.chat_template_date and artifact.metadata.model.chat_template_date is None:
        log.warning(
            "artifact=%s does not say for which day its chat template was rendered, so it is rendered for %s; another "
            "is model.chat_template_date=YYYY-MM-DD",
            path,
            model.chat_template_date,
        )


def warn_quantization(artifact: Artifact, model: LanguageModel, path: str) -> None:
    """Say that the weights are packed otherwise than when an artifact was made: it fits, its figures may be others."""
    made_for, here = artifact.metadata.model.quantization, model.quantization
    if made_for != here:
        log.warning(
            "artifact=%s was optimised for weights %s, and here they are %s: measure it with these before you rely on "
            "its figures",
            path,
            _packing(made_for),
            _packing(here),
        )


def _packing(quantization: QuantizationRecord | None) -> str:
    return f"quantised as {quantization.name}" if quantization else "not quantised"


def refuse_other_model(artifact: Artifact, model: LanguageModel, path: str, differs: list[str]) -> None:
    """Raise `ArtifactError` with both identities if something differs."""
    if differs:
        here = ModelRecord(
            path=model.path,
            revision=model.revision,
            fingerprint=model.fingerprint,
            gguf=model.gguf,
            quantization=model.quantization,
        )
        raise ArtifactError(
            f"artifact={path} was made for the model {identity(artifact.metadata.model)}, but the model here is "
            f"{identity(here)}; "
            f"different: {', '.join(differs)}. Use the model it was made for (model=… or model.path=…), or optimise "
            "a prompt for this one."
        )


def differences(artifact: Artifact, model: LanguageModel) -> list[str]:
    """What differs between a model and the one the artifact was made for; of its weights, only their GGUF file."""
    made_for = artifact.metadata.model.fingerprint
    keys = [key for key in ("config", "tokenizer") if getattr(made_for, key) != getattr(model.fingerprint, key)]
    return keys + ([GGUF_FILE] if artifact.metadata.model.gguf != model.gguf else [])


def identity(model: ModelRecord) -> str:
    """A model's name, revision and the beginning of its fingerprint, for people to compare."""
    revision = f"@{model.revision}" if model.revision else ""
    prints = model.fingerprint
    file = f"{model.gguf.quantization} file {model.gguf.sha256[:8]}, " if model.gguf else ""
    file += f"{model.quantization.name}, " if model.quantization else ""
    return f"{model.path}{revision} ({file}config {prints.config[:8]}, tokenizer {prints.tokenizer[:8]})"


def _same_rows(prompt: SoftPrompt, model: LanguageModel) -> bool:
    if max(prompt.slots.flat_ids) >= model.network.get_input_embeddings().weight.shape[0]:
        return False
    here = SoftPrompt.from_seed(prompt.slots, model).seed.cpu()
    # bfloat16 keeps 8 bits of a number, so rounding may move it by 1/256 of its size.
    return here.shape == prompt.seed.shape and torch.allclose(here, prompt.seed, rtol=8e-3, atol=1e-6)


def _hash(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
