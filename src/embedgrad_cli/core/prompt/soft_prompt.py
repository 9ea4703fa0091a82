"""The trainable vectors, the embeddings of tokens with them in the slots, and how far they moved."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.nearest_tokens import nearest_tokens
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.storage.results_record import Drift


class SoftPrompt(nn.Module):
    """The prompt as vectors: `vectors` and `seed`, both `[num_tokens, hidden_size]` float32.

    All slots stand in one tensor, one after the other; `slots` tells where each begins. Only `vectors` is trained.
    """

    seed: Tensor

    def __init__(self, slots: Slots, seed: Tensor, vectors: Tensor | None = None) -> None:
        super().__init__()
        self.slots = slots
        self.register_buffer("seed", seed.detach().float().clone())
        self.vectors = nn.Parameter((seed if vectors is None else vectors).detach().float().clone())

    @classmethod
    def from_seed(cls, slots: Slots, model: LanguageModel) -> SoftPrompt:
        """The prompt of step 0: exactly the embeddings of the seed's tokens, as the model computes them."""
        with torch.no_grad():
            return cls(slots, model.embed(torch.tensor(slots.flat_ids, dtype=torch.long, device=model.device)))

    def embed(self, tokens: Tensor, model: LanguageModel, dtype: torch.dtype | None = None) -> Tensor:
        """Embeddings of tokens as in `Example.tokens`: the model's own, and in slots these vectors.

        Args: tokens `[batch, width]`. Returns: `[batch, width, hidden_size]` in this dtype, or the model's.
        """
        embeds = model.embed(tokens.clamp(min=0))
        embeds = embeds if dtype is None else embeds.to(dtype)
        if not self.slots.num_tokens:
            return embeds
        # Not `self.vectors[...]`: on a CPU the threads of its backward pass add up in whatever order they come.
        vectors = embedding((-1 - tokens).clamp(min=0), self.vectors).to(embeds.dtype)
        return torch.where((tokens < 0).unsqueeze(-1), vectors, embeds)

    def split(self, tensor: Tensor) -> list[Tensor]:
        """Cut a `[num_tokens, …]` tensor into one per slot."""
        return list(torch.split(tensor, [len(ids) for ids in self.slots.ids]))


def relative_drift(prompt: SoftPrompt) -> Tensor:
    """Distance of each vector from its seed over the seed's length, `[num_tokens]`."""
    return (prompt.vectors.detach() - prompt.seed).norm(dim=1) / prompt.seed.norm(dim=1).clamp(min=1e-12)


@torch.no_grad()
def measure_drift(prompt: SoftPrompt, model: LanguageModel) -> Drift:
    """Compare the prompt with its seed and with the whole vocabulary."""
    found, _ = nearest_tokens(prompt.vectors, model.embedding_table())
    nearest, ids, distances = found[:, 0].tolist(), prompt.slots.flat_ids, relative_drift(prompt).tolist()
    return Drift(
        relative_l2=distances,
        cosine=nn.functional.cosine_similarity(prompt.vectors, prompt.seed, dim=1).tolist(),
        nearest=nearest,
        nearest_kept=sum(a == b for a, b in zip(nearest, ids, strict=True)),
        num_tokens=len(ids),
        mean_relative_l2=sum(distances) / max(len(distances), 1),
    )
