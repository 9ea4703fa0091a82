"""What a prompt changes where it was not trained: on everyday requests that have nothing to do with a task.

A prompt that was trained for one task may have lost what its text still allowed for. How far the vectors are from their
seed does not tell: that is measured in what the model predicts. The requests and their replies are the package's own
(`assets/elsewhere.jsonl`), the same for every run, so runs can be compared.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from embedgrad_cli import assets
from embedgrad_cli.config.schema import TemplateConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.divergence import divergences
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded, Renderings, encode
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import TemplateError
from embedgrad_cli.storage.results_record import Elsewhere

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """An everyday request and a short reply to it: a row without choices."""

    id: str
    query: str
    reply: str
    choices: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return self.reply


def requests() -> list[Request]:
    """The package's own requests."""
    lines = assets.ELSEWHERE.read_text(encoding="utf-8").splitlines()
    return [Request(**json.loads(line)) for line in lines]


def measure_elsewhere(
    prompt: SoftPrompt, model: LanguageModel, template: TemplateConfig, seeds: Sequence[str], shares_trunk: bool
) -> Elsewhere | None:
    """How far a prompt moves the model's predictions from those under its seed, on requests outside of its task.

    Every request is rendered in the run's template, once with the seed's own embeddings in the slots and once with the
    prompt's vectors; compared are the predictions of each token of the reply, the end of the turn included.

    Args:
        template: with its worked examples, if there are some.
        seeds: the texts in its slots.
        shares_trunk: whether the model can share a prefix (`core.passes.trunk_check`).

    Returns: None where no request can be rendered with the prompt's slots, or none fits the model's context.
    """
    encoded = _encode(PromptTemplate(template, list(seeds), model.tokenizer, model.is_chat), prompt, model)
    if not encoded.examples:
        log.warning("what the prompt changes elsewhere is not known: no request fits this template and model")
        return None
    seed = SoftPrompt.from_seed(prompt.slots, model)
    found = divergences(Forward(model, encoded.examples, shares_trunk), encoded.examples, seed, prompt)
    same = list(chain.from_iterable(one.same_token for one in found))
    return Elsewhere(
        kl=fmean(chain.from_iterable(one.kl for one in found)),
        first_token_kl=fmean(one.kl[0] for one in found),
        same_token=fmean(same),
        num_requests=len(found),
        num_tokens=len(same),
        by_request={example.id: fmean(one.kl) for example, one in zip(encoded.examples, found, strict=True)},
    )


def _encode(prompt_template: PromptTemplate, prompt: SoftPrompt, model: LanguageModel) -> Encoded:
    """The requests that stand in this template beside the very tokens that the prompt's vectors are for."""
    renderings = Renderings(prompt_template)

    def fits(request: Request) -> bool:
        try:
            ((_, slots),) = renderings.tokens_of([request])
        except TemplateError:  # the chat template rewrites this text
            return False
        return slots == prompt.slots

    fitting = [request for request in requests() if fits(request)]
    return encode(fitting, prompt_template, model, append_end_token=True, too_long="skip", renderings=renderings)
