"""The vocabulary tokens nearest to given vectors, from a model in memory or from its files alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import normalize

from embedgrad_cli.core.model.language_model import TABLE_CHUNK
from embedgrad_cli.core.model.shards import read_index
from embedgrad_cli.core.model.unpacked_gguf import place_of
from embedgrad_cli.errors import ModelError, UserError
from embedgrad_cli.storage.files import stays_below

# What the embedding table is called: Llama and most, GPT-2, GPT-NeoX, BLOOM and Falcon, Mamba, early Llama.
TABLE_NAME = re.compile(r"(embed_tokens|wte|embed_in|word_embeddings|embeddings?|tok_embeddings)\.weight")

Table = Iterable[tuple[int, Tensor]]  # (first id, rows [n, hidden_size]), as `LanguageModel.embedding_table` yields


@torch.no_grad()
def best_tokens(
    score: Callable[[Tensor], Tensor], table: Table, count: int = 1, forbidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The tokens with the highest scores.

    Args:
        score: from rows of the table `[rows, hidden_size]`, in float32, to scores `[n, rows]`.
        table: the embedding table in chunks, so that no copy of it is made.
        forbidden: ids that do not count.

    Returns: ids and scores, both `[n, count]`, best first.
    """
    ids, best = [], []
    for first, rows in table:
        scores = score(rows.float())
        if forbidden is not None:
            in_rows = forbidden[(forbidden >= first) & (forbidden < first + len(rows))] - first
            scores[:, in_rows] = -torch.inf
        top, indices = scores.topk(min(count, len(rows)), dim=1)
        ids.append(indices + first)
        best.append(top)
    every = torch.cat(best, dim=1)
    top, indices = every.topk(min(count, every.shape[1]), dim=1)
    return torch.cat(ids, dim=1).gather(1, indices), top


def nearest_tokens(
    vectors: Tensor, table: Table, count: int = 1, forbidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The tokens whose embeddings have the highest cosine with each vector `[n, hidden_size]`; see `best_tokens`."""
    directions = normalize(vectors.detach().float(), dim=1)
    return best_tokens(lambda rows: directions @ normalize(rows, dim=1).T, table, count, forbidden)


def find_model_folder(path: str, revision: str | None) -> Path | None:
    """The folder of a model on this machine: local, embedded, or in the hub's cache. Nothing is downloaded."""
    try:
        folder = Path(place_of(path)).expanduser()
    except UserError:  # embedded in another version
        return None
    if folder.is_dir():
        return folder
    if revision is not None and not stays_below(revision):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(path, "config.json", revision=revision)
    except HFValidationError:  # a path, not the name of a repository
        return None
    return Path(config).parent if isinstance(config, str) else None


class TableFile:
    """The embedding table in a model's safetensors files. Only its own tensor is read, and that in chunks.

    Args:
        folder: of the model.
        hidden_size: length of the vectors it is to be compared with.

    Raises:
        ModelError: the folder has no safetensors file, or no embedding table of that width in it.
    """

    def __init__(self, folder: Path, hidden_size: int) -> None:
        self.folder = folder
        try:
            names = self._names()
            found = [(self._shape(file, name), file, name) for name, file in names if TABLE_NAME.search(name)]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"the weights in {folder} cannot be read: {error}.") from error
        fitting = [(shape[0], file, name) for shape, file, name in found if shape[1:] == [hidden_size]]
        if not fitting:
            raise ModelError(f"{folder} has no safetensors file with an embedding table of width {hidden_size}.")
        self.rows, self._file, self._name = max(fitting)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        with safe_open(self.folder / self._file, framework="pt") as file:
            table = file.get_slice(self._name)
            for start in range(0, self.rows, TABLE_CHUNK):
                yield start, table[start : start + TABLE_CHUNK]

    def _names(self) -> list[tuple[str, str]]:
        """Every tensor's name and file."""
        index = read_index(self.folder)
        if index is not None:
            return list(index["weight_map"].items())
        pairs = []
        for path in sorted(self.folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                pairs += [(name, path.name) for name in file.keys()]  # noqa: SIM118 - not a dict
        return pairs

    def _shape(self, file: str, name: str) -> list[int]:
        with safe_open(self.folder / file, framework="pt") as opened:
            return opened.get_slice(name).get_shape()
