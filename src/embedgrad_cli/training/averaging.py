"""The mean of the vectors over the last steps, in which the swings of single steps cancel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt


@dataclass(frozen=True)
class Averaging:
    """An exponential moving average of the vectors, without the bias of its beginning:

        m_t = decay * m_{t-1} + (1 - decay) * v_t        average_t = m_t / (1 - decay^t)

    over the vectors v_t after each step t = 1, 2, … with m_0 = 0. Averaging iterates is Polyak's and Juditsky's (1992),
    the division Adam's (Kingma & Ba 2015, arXiv 1412.6980). About 1 / (1 - decay) steps count. The mean of vectors in a
    ball is in it too, so the trust region holds.

    Args:
        decay: None averages nothing.
    """

    decay: float | None

    def updated(self, total: Tensor | None, prompt: SoftPrompt) -> Tensor | None:
        """m_t of m_{t-1}, `[num_tokens, hidden_size]` float32; None where nothing is averaged, and before step 1."""
        if self.decay is None:
            return None
        new = (1.0 - self.decay) * prompt.vectors.detach()
        return new if total is None else self.decay * total + new

    def of(self, prompt: SoftPrompt, total: Tensor | None, step: int) -> SoftPrompt:
        """The prompt with the average after so many steps, from m_t; or as it is, where there is none."""
        if self.decay is None or total is None:
            return prompt
        return SoftPrompt(prompt.slots, prompt.seed, total / (1.0 - self.decay**step))
