"""What a run works on, as digests: the rows, the tokens that they become, the model, and the vectors under test.

No network is loaded for them, so that a finished run is looked at quickly.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from embedgrad_cli.config.schema import ModelConfig, TemplateConfig
from embedgrad_cli.core.model.model_digest import model_digest
from embedgrad_cli.core.model.pinned_template import pinned_day
from embedgrad_cli.core.model.tokenizer import ModelTokenizer, today
from embedgrad_cli.core.text.encoding import TOKENIZER_BATCH, Renderings
from embedgrad_cli.core.text.marked_tokens import token_ids
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.evaluation.arms import ArmPrompt
from embedgrad_cli.storage.run_digests import RunDigests
from embedgrad_cli.tasks.load import Row, Splits


def digests_of(
    model: ModelConfig,
    known: ModelTokenizer,
    template: TemplateConfig,
    splits: Splits,
    rows: Mapping[str, Sequence[Row]],
    prompts: Mapping[str, ArmPrompt],
    renderings: Renderings | None = None,
) -> RunDigests:
    """The digests of a run.

    - `split` is `Splits.content_digest`: every split, the rows' order included.
    - `rendering` is of the token ids of each prompt's rows, with its text in the template, and of the answers that
      are trained on or scored after it.
    - `model` is `model_digest`.
    - `prompts` is of the vectors of prompts that were trained.

    Args:
        known: the model's tokenizer, as the run renders with it.
        template: with its worked examples.
        rows: that the model reads with each of the prompts.
        renderings: under the template of one of the prompts, for those who need the same rows' tokens afterwards.

    Raises:
        TemplateError: the template cannot carry a prompt.
    """
    trained = [prompt.trained.vectors.detach().cpu() for prompt in prompts.values() if prompt.trained is not None]
    vectors = hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in trained))
    return RunDigests(
        split=splits.content_digest,
        rendering=_rendering(known, template, rows, prompts, renderings),
        model=model_digest(model),
        prompts=vectors.hexdigest() if trained else None,
        chat_template_date=pinned_day(known.tokenizer.chat_template),
    )


def dated(model: ModelConfig, before: RunDigests | None) -> ModelConfig:
    """The settings of a model with the day that a run's chat template is told: a setting, or that of the run so far.

    If there is neither, it is today: the same day wherever the run renders, also after midnight. In the same way
    `dtype=auto` is what it came to when the run began.
    """
    day = model.chat_template_date or (before.chat_template_date if before else None)
    dtype = before.dtype if before and before.dtype and model.dtype == "auto" else model.dtype
    return replace(model, chat_template_date=day or today().isoformat(), dtype=dtype)


def _rendering(
    known: ModelTokenizer,
    template: TemplateConfig,
    rows: Mapping[str, Sequence[Row]],
    prompts: Mapping[str, ArmPrompt],
    renderings: Renderings | None,
) -> str:
    total = hashlib.sha256()
    read = chain.from_iterable(rows.values())
    answers = list(dict.fromkeys(text for row in read for text in (row.target, *row.choices)))
    # Prompts of the same text, as a seed and what became of it, read the same rows.
    texts = {(prompt.seeds, known.is_chat and not prompt.is_bare): rows[name] for name, prompt in prompts.items()}
    tails, ends = dict[str, None](), dict[str, None]()
    for (seeds, is_chat), of_text in texts.items():
        written = None if seeds is None else list(seeds)
        if renderings and (renderings.prompt_template.seeds, renderings.prompt_template.is_chat) == (written, is_chat):
            rendered = renderings
        else:
            rendered = Renderings(PromptTemplate(template, written, known.tokenizer, is_chat))
        prompt_template = rendered.prompt_template
        _add(total, (token_ids(*tokens_and_slots) for tokens_and_slots in rendered.tokens_of(of_text)))
        tails[prompt_template.tail + prompt_template.blank] = None
        ends[f"end {prompt_template.turn_end}"] = None
    for tail in tails:  # an answer is tokenised after the template's fixed tail: see `continuation`
        _add(total, _tokenised([tail + answer for answer in answers], known.tokenizer))
    for end in ends:
        total.update(end.encode())
    return total.hexdigest()


def _tokenised(texts: Sequence[str], tokenizer: Any) -> Iterator[list[int]]:
    for start in range(0, len(texts), TOKENIZER_BATCH):
        batch = list(texts[start : start + TOKENIZER_BATCH])
        yield from tokenizer(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]


def _add(total: Any, token_ids_of_each: Iterable[Sequence[int]]) -> None:
    """Add the token ids of each text to a digest, after their number."""
    for tokens in token_ids_of_each:
        total.update(array("q", [len(tokens), *tokens]).tobytes())
