"""Artifacts for tiny models of several families, and what embedgrad itself computes with them: the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.artifacts import save_prompt
from tests.conftest import PLACEMENTS, SEEDS, Row, make_network, make_tokenizer, optimize_config
from tests.gguf_models import write_gguf
from torch import Tensor

from embedgrad_cli.cli.main import main
from embedgrad_cli.config.schema import ModelConfig, PromptConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import generate
from embedgrad_cli.core.passes.trunk_check import why_no_trunk
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.template import PromptTemplate

QUERIES = ["Tom has 3 apples.", "How many apples does he have now?", "a gripping, funny film", "7 for 7"]
NEW_TOKENS = 12


@dataclass(frozen=True)
class Case:
    """A model folder, an artifact made for it, and embedgrad's own encodings, logits and answers for `QUERIES`."""

    folder: Path
    artifact: Path
    model: LanguageModel
    prompt: SoftPrompt
    examples: Sequence[Example]

    def logits(self) -> list[Tensor]:
        """After each query, `[vocabulary]`, by the plain forward."""
        embeds = [self.prompt.embed(torch.tensor([example.tokens]), self.model) for example in self.examples]
        return [self.model.network(inputs_embeds=row).logits[0, -1] for row in embeds]

    def answers(self) -> list[list[int]]:
        shares_trunk = why_no_trunk(self.model, self.examples, self.prompt) is None
        forward = Forward(self.model, self.examples, shares_trunk)
        answers = generate(forward, self.examples, self.prompt, NEW_TOKENS, 4)
        return [answer for (answer,) in answers]

    def export(self, format: str, output_dir: Path, *more: str) -> int:
        """Run the command; returns its exit code."""
        command = ["export", f"artifact={self.artifact}", f"format={format}", f"output_dir={output_dir}", *more]
        return main(command)


def make_case(
    folder: Path,
    architecture: str = "qwen2",
    placement: str = "system",
    *,
    tied: bool = True,
    chat: bool = True,
    dtype: torch.dtype = torch.float32,
    tokenizer: Any = None,
    seeds: Sequence[str] = (),
    spare_rows: int = 0,
    stop: list[str] | None = None,
    told: dict[str, Any] | None = None,
    gguf: str | None = None,
    **saving: Any,
) -> Case:
    """Save a random model and an artifact whose vectors lie well away from any token's.

    `gguf` names the quantisation of a GGUF file that it is saved in.
    """
    tokenizer = tokenizer or make_tokenizer(chat)
    network: Any = make_network(architecture, len(tokenizer) + spare_rows)
    if tied and not network.config.tie_word_embeddings:
        network.config.tie_word_embeddings = True
        network.tie_weights()
    assert network.config.tie_word_embeddings is tied
    if gguf:
        (folder / "base").mkdir()
        write_gguf(folder / "base/tiny.gguf", network, tokenizer, gguf)
    else:
        network.to(dtype).save_pretrained(folder / "base", **saving)
        tokenizer.save_pretrained(folder / "base")
    name = str(dtype).removeprefix("torch.")  # not auto, which is what is faster here
    config = ModelConfig(str(folder / "base"), None, name, "auto", False, told)  # type: ignore[arg-type]
    model = load_model(config, torch.device("cpu"))
    template = PLACEMENTS[placement]
    seeds = list(seeds) or (SEEDS if placement == "both-sides" else SEEDS[:1])
    prompt_template = PromptTemplate(template, seeds, model.tokenizer, model.is_chat)
    rows = [Row(str(number), query, "7") for number, query in enumerate(QUERIES)]
    encoded = encode(rows, prompt_template, model, append_end_token=False)
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    noise = torch.randn(prompt.vectors.shape, generator=torch.Generator().manual_seed(0))
    prompt.vectors.data += noise * prompt.seed.square().mean().sqrt()
    prompt.requires_grad_(False)
    settings = optimize_config(folder / "run", folder / "base", folder, model=config, template=template)
    settings.task.stop = stop
    settings.prompt = PromptConfig(seeds if len(seeds) > 1 else seeds[0])
    save_prompt(folder / "prompt.safetensors", prompt, model, settings, split_hash="0" * 64)
    return Case(folder / "base", folder / "prompt.safetensors", model, prompt, encoded.examples)


def merging_tokenizer() -> Any:
    """A tokenizer with one token for ".\\n", as Qwen's and Llama 3's have: it straddles the edge of a prompt."""
    from tokenizers import AddedToken

    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken(".\n", normalized=False, special=False)])
    return tokenizer


def ids_of(tokenizer: Any, query: str) -> Tensor:
    """An ordinary conversation of one turn, as any client sends it: `[1, length]`."""
    messages = [{"role": "user", "content": query}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
        "input_ids"
    ]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path)
