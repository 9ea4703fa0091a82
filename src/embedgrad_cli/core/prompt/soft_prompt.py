"""The trainable vectors, the bound on how far they may move, and how far they did."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from embedgrad_cli.config.schema import TrustRegionConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.text.encoding import Slots


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

    def split(self, tensor: Tensor) -> list[Tensor]:
        """Cut a `[num_tokens, …]` tensor into one per slot."""
        return list(torch.split(tensor, [len(ids) for ids in self.slots.ids]))


class TrustRegion:
    """Keeps every vector near its seed, because the optimised prompt should still mean what the seed says.

    `ball`: after each step a vector outside the ball of `radius * rms * sqrt(hidden_size)` around its seed is moved to
    its surface (PEFT's CPT bounds its context tokens in the same way). `penalty`: the mean squared distance, in the
    same unit, times `weight` is added to the loss. `none`: no bound.
    """

    def __init__(self, config: TrustRegionConfig, embedding_rms: float) -> None:
        self.config, self.rms = config, embedding_rms

    def add_penalty_gradient(self, prompt: SoftPrompt) -> None:
        """Add the gradient of the penalty to the prompt's; does nothing for the other kinds."""
        if self.config.kind == "penalty":
            penalty = self.config.weight * ((prompt.vectors - prompt.seed) / self.rms).square().mean()
            penalty.backward()

    @torch.no_grad()
    def project(self, prompt: SoftPrompt) -> None:
        """Move vectors that left the ball back to its surface; does nothing for the other kinds."""
        if self.config.kind != "ball":
            return
        delta = prompt.vectors - prompt.seed
        limit = self.config.radius * self.rms * delta.shape[1] ** 0.5
        scale = (limit / delta.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
        # Vectors inside stay untouched to the last bit, so that an unmoved prompt still is its seed.
        prompt.vectors.copy_(torch.where(scale < 1.0, prompt.seed + delta * scale, prompt.vectors))


@dataclass(frozen=True)
class Drift:
    """How far the vectors are from their seed.

    Per token: `relative_l2` is the distance over the seed's length, `cosine` the cosine between the two, `nearest`
    the vocabulary id with the highest cosine. `nearest_kept` counts the vectors whose nearest token is their seed's.
    Nearest tokens are not meanings: prompts close to any given text can do anything (Khashabi et al., 2112.08348).
    """

    relative_l2: list[float]
    cosine: list[float]
    nearest: list[int]
    nearest_kept: int

    @property
    def mean_relative_l2(self) -> float:
        return sum(self.relative_l2) / max(len(self.relative_l2), 1)

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "num_tokens": len(self.nearest), "mean_relative_l2": self.mean_relative_l2}


def relative_drift(prompt: SoftPrompt) -> Tensor:
    """Distance of each vector from its seed over the seed's length, `[num_tokens]`."""
    return (prompt.vectors.detach() - prompt.seed).norm(dim=1) / prompt.seed.norm(dim=1).clamp(min=1e-12)


@torch.no_grad()
def measure_drift(prompt: SoftPrompt, model: LanguageModel) -> Drift:
    """Compare the prompt with its seed and with the whole vocabulary (in chunks, so that no copy of it is made)."""
    vectors = nn.functional.normalize(prompt.vectors, dim=1)
    best = torch.full((len(vectors),), -2.0, device=vectors.device)
    nearest = torch.zeros(len(vectors), dtype=torch.long, device=vectors.device)
    for first, rows in model.embedding_table():
        cosine, index = (vectors @ nn.functional.normalize(rows.float(), dim=1).T).max(dim=1)
        nearest = torch.where(cosine > best, index + first, nearest)
        best = torch.maximum(best, cosine)
    ids = prompt.slots.flat_ids
    return Drift(
        relative_l2=relative_drift(prompt).tolist(),
        cosine=nn.functional.cosine_similarity(prompt.vectors, prompt.seed, dim=1).tolist(),
        nearest=nearest.tolist(),
        nearest_kept=sum(a == b for a, b in zip(nearest.tolist(), ids, strict=True)),
    )
