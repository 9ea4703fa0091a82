"""What every export starts from: the artifact and the model it was made for, of which only rows of the table are read.

No network is built, so the model may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_outline
from embedgrad_cli.core.model.tokenizer import loading
from embedgrad_cli.core.prompt.artifact import (
    SEED_ROWS,
    Artifact,
    differences,
    load_artifact,
    recorded_template,
    refuse_other_model,
    template_record,
    told_as_in_training,
    warn_quantization,
    warn_undated,
)
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.marked_tokens import Example, Slots
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import ArtifactError, DataError, ModelError, TemplateError
from embedgrad_cli.exports.placed_weights import PlacedWeights, place_weights
from embedgrad_cli.exports.weight_files import DTYPES, Checkpoint, StoredTensor, read_rows
from embedgrad_cli.storage.record import Json

# An export is compared with the encoding of training on queries that begin, end and break in different ways.
PROBES = ("How many apples are left?", "a film, gripping\nand 'humane'", "7 + 12 =", "(Ça va ?)", "x")
SAME = 8e-3  # bfloat16 keeps 8 bits of a number, so rounding may move it by 1/256 of its size


@dataclass(frozen=True)
class Probe:
    """A query that stands in for a user's (a `Row` for `encode`)."""

    query: str
    id: str = "probe"
    target: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """An artifact with its model's files.

    `model` has a network without weights; `placed` says which tensors of the checkpoint are its input and output
    embeddings; `scale` is what the embedding module multiplies rows of the table with.
    """

    artifact: Artifact
    model: LanguageModel
    folder: Path
    checkpoint: Checkpoint
    placed: PlacedWeights
    scale: float

    @property
    def table(self) -> StoredTensor:
        """The embedding table in the checkpoint."""
        return self.placed.table

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in, unless told otherwise; its weights may be stored in less."""
        configured: torch.dtype | None = getattr(self.model.network.config, "dtype", None)
        return DTYPES[self.table.dtype] if configured is None else configured

    @cached_property
    def prompt_template(self) -> PromptTemplate:
        metadata = self.artifact.metadata
        seeds = list(as_texts(metadata.seed.text))
        return PromptTemplate(recorded_template(metadata), seeds, self.model.tokenizer, self.model.is_chat)

    def encode(self, query: str) -> Example:
        """One query as in training and evaluation; see `core.text.encoding`.

        Raises:
            ArtifactError: the slots hold other tokens than the vectors were made for.
            DataError: the query does not fit the model's context.
        """
        encoded = encode([Probe(query)], self.prompt_template, self.model, append_end_token=False, reserve=1)
        made_for = self.artifact.prompt.slots
        if encoded.slots != made_for:
            was, now = (self._names(slots) for slots in (made_for, encoded.slots))
            raise ArtifactError(
                f"with the query {query[:40]!r} the prompt's tokens are {now}, but the vectors were made for {was}: a "
                "token straddles the edge between prompt and query. Begin the query with another character."
            )
        return encoded.examples[0]

    @cached_property
    def probes(self) -> list[tuple[str, Example]]:
        """Queries and their encodings; those that would merge with the prompt are left out."""
        found = []
        for query in PROBES:
            try:
                found.append((query, self.encode(query)))
            except (ArtifactError, DataError, TemplateError) as error:
                problem = error
        if len(found) < 2:
            raise problem
        return found

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """Embeddings of tokens as in `Example.tokens`, slot tokens included: float32 `[len(tokens), hidden_size]`.

        The numbers are those that the network computes.
        """
        vectors = self.artifact.prompt.vectors.detach()
        ids = sorted({token for token in tokens if token >= 0})
        rows = {}
        if ids:
            table = read_rows(self.table, ids).to(self.dtype)
            rows = dict(zip(ids, (table * torch.tensor(self.scale, dtype=self.dtype)).float(), strict=True))
        return torch.stack([rows[token] if token >= 0 else vectors[-1 - token] for token in tokens])

    def _names(self, slots: Slots) -> list[Any]:
        return [self.model.tokenizer.convert_ids_to_tokens(list(ids)) for ids in slots.ids]


def open_source(artifact: str | Path, model: ModelConfig | None = None) -> Source:
    """Read an artifact and find its model's files.

    Args:
        artifact: the prompt.safetensors.
        model: where the model is; None is where it was when the artifact was made.

    Raises:
        ArtifactError: the artifact cannot be read, or the model is another one.
        ModelError: the model's files cannot be read, or are of a kind that no export can change.
    """
    loaded = load_artifact(Path(artifact))
    # Whether the prompt was trained in a chat template or in plain text, and what that template was told, is the
    # artifact's, not the folder's.
    recorded, revision = loaded.metadata.config.model, loaded.metadata.model.revision
    config = model or ModelConfig(recorded.path, revision, "auto", "auto", trust_remote_code=False)
    config = told_as_in_training(replace(config, template=recorded.template), loaded.metadata)
    outline, folder = load_outline(config)
    if config.chat_template_date is None:
        warn_undated(loaded, outline, str(artifact))
    refuse_other_model(loaded, outline, str(artifact), differences(loaded, outline))
    warn_quantization(loaded, outline, str(artifact))
    checkpoint = Checkpoint(folder, getattr(outline.network.config, "transformers_weights", None))
    with loading(config):
        placed = place_weights(checkpoint, outline.network)
    if placed.table.dtype not in DTYPES:
        raise ModelError(
            f"model.path={config.path}: its embedding table is stored as {placed.table.dtype}, and embedgrad knows "
            f"{', '.join(DTYPES)}. Save the model with `save_pretrained`, unquantised."
        )
    scale = _scale(loaded, placed.table)
    refuse_other_model(loaded, outline, str(artifact), [] if scale else [SEED_ROWS])
    return Source(loaded, outline, folder, checkpoint, placed, scale or 1.0)


def template_json(artifact: Artifact) -> Json:
    """The template that a prompt stands in, worked examples included."""
    return template_record(recorded_template(artifact.metadata)).to_json()


def _scale(artifact: Artifact, table: StoredTensor) -> float | None:
    """What rows of the table are multiplied with to become embeddings: 1, or √hidden_size in the Gemma family.

    Read off the seed, whose embeddings the artifact holds; None if its rows are not the seed's at any scale.
    """
    ids, seed = artifact.prompt.slots.flat_ids, artifact.prompt.seed.double()
    if max(ids) >= table.shape[0] or seed.shape[1:] != table.shape[1:]:
        return None
    rows = read_rows(table, ids).double()
    fitted = ((rows * seed).sum() / rows.square().sum()).item()
    root = table.shape[1] ** 0.5
    known = [1.0, root, torch.tensor(root, dtype=DTYPES[table.dtype]).item()]  # a module may round it to its own type
    scale = min(known, key=lambda candidate: abs(candidate - fitted))
    if abs(scale / fitted - 1) > SAME if fitted else True:
        scale = fitted
    return scale if torch.allclose(rows * scale, seed, rtol=SAME, atol=1e-6) and scale else None
