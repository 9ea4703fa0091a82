"""What is in an artifact, and what the files of its model say about its vectors, as far as they are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedgrad_cli.errors import ModelError
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata
from embedgrad_cli.storage.record import Record

if TYPE_CHECKING:
    from embedgrad_cli.core.model.nearest_tokens import TableFile
    from embedgrad_cli.core.prompt.artifact import Artifact


SHOWN_NEAREST = 5
SAME_ROW = 0.99  # cosine between a seed token's embedding in the artifact and in the model's files


@dataclass(frozen=True, kw_only=True)
class NearToken(Record):
    """A token of the vocabulary near a vector. `token` is its text, None without the model's tokenizer."""

    id: int
    token: str | None
    cosine: float

    @property
    def name(self) -> str:
        """The token for people."""
        return _name(self.token, self.id)


@dataclass(frozen=True, kw_only=True)
class InspectedVector(Record):
    """One vector beside the seed token it was started from; `nearest` is best first."""

    slot: int
    seed_id: int
    seed: str | None
    relative_drift: float
    cosine: float
    nearest: list[NearToken]

    @property
    def seed_name(self) -> str:
        """The seed token for people."""
        return _name(self.seed, self.seed_id)


@dataclass(frozen=True, kw_only=True)
class Inspection(Record):
    """Everything `inspect` says: `verified` is the model the artifact was compared with, `missing` why there are no
    nearest tokens."""

    artifact: str
    verified: str | None
    tokens: list[InspectedVector]
    missing: str | None
    metadata: ArtifactMetadata


def inspect(artifact: Artifact, path: str, verified: str | None = None) -> Inspection:
    """Look at an artifact, and at the files of its model as far as they are on this machine."""
    from torch.nn.functional import cosine_similarity

    from embedgrad_cli.core.model.nearest_tokens import find_model_folder
    from embedgrad_cli.core.prompt.soft_prompt import relative_drift

    prompt, model = artifact.prompt, artifact.metadata.model
    is_recorded = verified in (None, model.path)
    folder = find_model_folder(verified or model.path, model.revision if is_recorded else None)
    text_of = _token_texts(folder)
    nearest, missing = _nearest(artifact, folder)
    slots = [number for number, ids in enumerate(prompt.slots.ids) for _ in ids]
    drifts = relative_drift(prompt).tolist()
    cosines = cosine_similarity(prompt.vectors.detach(), prompt.seed, dim=1).tolist()
    tokens = [
        InspectedVector(
            slot=slot,
            seed_id=seed_id,
            seed=text_of(seed_id),
            relative_drift=drift,
            cosine=cosine,
            nearest=[NearToken(id=token, token=text_of(token), cosine=near) for token, near in neighbours],
        )
        for slot, seed_id, drift, cosine, neighbours in zip(
            slots, prompt.slots.flat_ids, drifts, cosines, nearest, strict=True
        )
    ]
    return Inspection(artifact=path, verified=verified, tokens=tokens, missing=missing, metadata=artifact.metadata)


def _name(text: str | None, token_id: int) -> str:
    return f"#{token_id}" if text is None else repr(text)


def _nearest(artifact: Artifact, folder: Path | None) -> tuple[list[list[tuple[int, float]]], str | None]:
    """Ids and cosines of the nearest tokens of each vector, or why there are none."""
    from embedgrad_cli.core.model.nearest_tokens import TableFile, nearest_tokens

    vectors = artifact.prompt.vectors.detach()
    try:
        if folder is None:
            path = artifact.metadata.model.path
            raise ModelError(f"the model {path} is not on this machine; name its folder with --verify.")
        table = TableFile(folder, vectors.shape[1])
        if not _holds_seed(artifact, table):
            raise ModelError(f"the embeddings in {folder} are not those that the prompt was made for.")
    except ModelError as error:
        return [[] for _ in vectors], str(error)
    ids, cosines = nearest_tokens(vectors, table, SHOWN_NEAREST)
    return [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), cosines.tolist(), strict=True)], None


def _holds_seed(artifact: Artifact, table: TableFile) -> bool:
    """Whether the table has the seed's embeddings; a factor is no difference, as some models scale theirs."""
    import torch
    from torch.nn.functional import cosine_similarity

    ids = torch.tensor(artifact.prompt.slots.flat_ids)
    alike = torch.zeros(len(ids))
    for first, rows in table:
        here = (ids >= first) & (ids < first + len(rows))
        alike[here] = cosine_similarity(rows[ids[here] - first].float(), artifact.prompt.seed[here], dim=1)
    return bool((alike > SAME_ROW).all())


def _token_texts(folder: Path | None) -> Callable[[int], str | None]:
    """What an id of the model's tokenizer reads; None for all if there is no tokenizer."""
    file = folder / "tokenizer.json" if folder else None
    if file is None or not file.is_file():
        return lambda token: None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda token: tokenizer.decode([token], skip_special_tokens=False)
