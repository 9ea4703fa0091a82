"""One model folder, embedgrad's way beside plain transformers': what a text is, its gradient, answers and exports.

The reference is transformers alone: token ids, one row at a time, without a cache. Vectors get
into it where the network's own embedding module looks ids up, so whatever else a model does with ids it does there too.
What a model rounds in half precision is measured by the same reference in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from embedgrad_cli.config.schema import ExportConfig, ModelConfig, OptimizeConfig, SearchConfig
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.scoring import generate, score_choices
from embedgrad_cli.core.prompt.artifact import artifact_metadata, load_artifact, save_artifact
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example, token_ids
from embedgrad_cli.errors import EmbedgradError
from embedgrad_cli.evaluation.arms import Arm, ArmPrompt, build_arms
from embedgrad_cli.exports import writer_of
from embedgrad_cli.storage.artifact_metadata import PromptMetrics
from embedgrad_cli.tasks.load import load
from methods.problem import compose

CHECKS = {  # by the table's columns, the methods of `Checks`
    "logits by ids": "logits",
    "gradient": "gradient",
    "greedy answers": "answers",
    "model export": "model_export",
    "PEFT export": "peft_export",
}
ROWS = 6
NEW_TOKENS = 8
BATCH = 4
ALLOWED = 1e-3  # nats, and share of the gradient; float32 alone moves them by some 1e-5
NO_GENERATE = "answers are not compared: on this model, transformers' own `generate` fails"
SEED = "Let's think step by step."


@dataclass(frozen=True)
class Cell:
    """What a check found: `equal`, `differs` or `refused`.

    Args:
        difference: the largest; in nats of log-likelihood, or of the gradient as a share of its length.
        rounding: what the model's own half precision makes of the reference.
        words: why it was refused, the error that it ended with, or what was left out.
    """

    verdict: Literal["equal", "differs", "refused"]
    difference: float | None = None
    rounding: float = 0.0
    words: str = ""


@dataclass(frozen=True)
class Finding:
    """A line of the table. `way` is how the model is computed: by a shared prefix, or in full and why."""

    family: str
    cells: dict[str, Cell]
    way: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Difference:
    found: float
    rounding: float
    words: str = ""

    @property
    def cell(self) -> Cell:
        equal = self.found <= max(ALLOWED, 2 * self.rounding)
        return Cell("equal" if equal else "differs", self.found, self.rounding, self.words)


class Reference:
    """Plain transformers on the same folder, and once more in float32."""

    def __init__(self, folder: Path, vectors: SoftPrompt) -> None:
        from transformers import AutoModelForCausalLM

        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        self.network.requires_grad_(False)
        half = self.network.dtype != torch.float32
        self.exact = copy.deepcopy(self.network).float() if half else self.network
        self.prompt = vectors

    def logits(self, network: Any, tokens: Sequence[int], vectors: Tensor | None) -> Tensor:
        """`[len(tokens), vocabulary]`, float32. Slot tokens are -1 - i, as in `Example.tokens`; None: the seed's."""
        ids = torch.tensor([token_ids(tokens, self.prompt.slots)])
        places = [place for place, token in enumerate(tokens) if token < 0]
        with _looked_up(network, places, vectors):
            return network(input_ids=ids, use_cache=False).logits[0].float()

    def log_likelihoods(self, network: Any, example: Example, answer: Sequence[int], vectors: Tensor | None) -> Tensor:
        """Of every token at each place of the answer and the one behind it: `[len(answer) + 1, vocabulary]`."""
        logits = self.logits(network, [*example.tokens, *answer], vectors)
        return logits[len(example.tokens) - 1 :].log_softmax(-1)

    def step_by_step(self, network: Any, example: Example, answer: Sequence[int], vectors: Tensor) -> Tensor:
        """As `log_likelihoods`, by a pass for each place: in some models what comes later changes what was before."""
        ends = range(len(answer) + 1)
        passes = (self.logits(network, [*example.tokens, *answer[:end]], vectors)[-1] for end in ends)
        return torch.stack(list(passes)).log_softmax(-1)

    def gradient(self, network: Any, examples: Sequence[Example], vectors: Tensor) -> Tensor:
        """Of the mean loss over all target tokens."""
        leaf, count = vectors.clone().requires_grad_(), sum(len(example.target) for example in examples)
        total = torch.zeros_like(leaf)
        for example in examples:
            first = len(example.tokens) - 1
            logits = self.logits(network, [*example.tokens, *example.target], leaf)[first:-1]
            loss = cross_entropy(logits, torch.tensor(example.target), reduction="sum") / count
            total += torch.autograd.grad(loss, leaf)[0]
        return total


@contextmanager
def _looked_up(network: Any, places: Sequence[int], vectors: Tensor | None) -> Iterator[None]:
    """Let the embedding module give the vectors in these places."""

    def put(_: torch.nn.Module, __: Any, output: Tensor) -> Tensor:
        if vectors is None:
            return output
        if output.shape[1] <= max(places):  # a later step, after what a cache holds
            return output
        output = output.clone()
        output[0, places] = vectors.to(output.dtype)
        return output

    handle = network.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


class Checks:
    """The checks of one model folder, in a folder of their own.

    Raises:
        EmbedgradError: embedgrad refuses the model.
    """

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.config = _config_of(base)
        self.model = load_model(self.config.model, torch.device("cpu"))
        splits = load(self.config.task, self.config.seed)
        rows = _of_different_length([*splits.train, *splits.test], ROWS)
        template, task = self.config.template, self.config.task
        arms = build_arms(rows, self.model, template, task, {"seed": ArmPrompt((SEED,))}, with_targets=True).arms
        self.arm: Arm = arms["seed"]
        self.queries = [row.query for row in rows]
        self.prompt = SoftPrompt.from_seed(self.arm.prompt.slots, self.model)
        noise = torch.randn(self.prompt.vectors.shape, generator=torch.Generator().manual_seed(0))
        self.prompt.vectors.data += noise * self.prompt.seed.square().mean().sqrt()
        self.reference = Reference(base, self.prompt)

    @property
    def way(self) -> str:
        return self.arm.slow_because or ""

    @property
    def vectors(self) -> Tensor:
        return self.prompt.vectors.detach()

    def cell(self, column: str) -> Cell:
        try:
            difference: Difference = getattr(self, CHECKS[column])()
        except Exception as error:
            return _failure(error, self.base)
        return difference.cell

    def logits(self) -> Difference:
        """Log-likelihoods of choices of one token and of more, under the untouched prompt, against the text's ids."""
        choices = [example.target[:length] for example in self.arm.examples for length in (1, 3)]
        scores = score_choices(self.arm.forward, self.arm.examples, choices, self.arm.prompt, BATCH)
        plain, exact = self._of_both(lambda network: self._plain_scores(network, choices))
        return Difference(_largest(torch.tensor(scores) - exact), _largest(plain - exact))

    def _plain_scores(self, network: Any, choices: Sequence[tuple[int, ...]]) -> Tensor:
        table = []
        for example in self.arm.examples:
            with torch.no_grad():
                of_all = [self.reference.log_likelihoods(network, example, choice, None) for choice in choices]
            sums = [
                sum(float(of[i, token]) for i, token in enumerate(c)) for of, c in zip(of_all, choices, strict=True)
            ]
            table.append(sums)
        return torch.tensor(table)

    def gradient(self) -> Difference:
        """Under the moved prompt, as a share of the reference's length."""
        self.prompt.vectors.grad = None
        self.arm.forward.accumulate_gradient(self.arm.examples, self.prompt)
        found = self.prompt.vectors.grad
        plain, exact = self._of_both(lambda network: self.reference.gradient(network, self.arm.examples, self.vectors))
        if found is None:
            return Difference(1.0, 0.0)
        return Difference(*(float((one - exact).norm() / exact.norm()) for one in (found, plain)))

    def answers(self) -> Difference:
        """Greedy answers under the moved prompt: how much less likely than the likeliest a chosen token is."""
        prompt = self.prompt
        answers = generate(self.arm.forward, self.arm.examples, prompt, NEW_TOKENS, BATCH)
        return self._behind_the_likeliest([answer for (answer,) in answers])

    def _behind_the_likeliest(self, answers: Sequence[Sequence[int]]) -> Difference:
        """Where an answer ended before its limit, an end of turn was chosen."""
        size = self.model.network.get_input_embeddings().weight.shape[0]
        ends, found = [end for end in self.model.end_ids if end < size], list[Difference]()
        for example, answer in zip(self.arm.examples, answers, strict=True):
            plain, exact = self._likelihoods_of_answer(example, answer)
            chosen = [exact[i, token] for i, token in enumerate(answer)]
            if len(answer) < NEW_TOKENS:
                chosen.append(exact[len(answer), ends].max())
            best = exact[: len(chosen)].max(-1).values
            found.append(Difference(_largest(best - torch.stack(chosen)), _largest((plain - exact)[: len(chosen)])))
        return _worst(found)

    @torch.no_grad()
    def _likelihoods_of_answer(self, example: Example, answer: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self._of_both(lambda network: self.reference.step_by_step(network, example, answer, self.vectors))

    @torch.no_grad()
    def peft_export(self) -> Difference:
        """Log-likelihoods after the adapter's own conversations."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        folder = self._export("peft")
        network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(self.base, dtype="auto"), folder)
        return self._last_likelihoods(network.eval(), folder)

    @torch.no_grad()
    def model_export(self) -> Difference:
        """Log-likelihoods after the folder's own conversations, and the answers that it generates."""
        from transformers import AutoModelForCausalLM

        folder = self._export("model")
        network = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        logits, expected = self._last_likelihoods(network, folder), self._generated
        if logits.cell.verdict != "equal" or expected is None:
            return logits if expected else replace(logits, words=NO_GENERATE)
        answers = [self._answer(network, ids[0].tolist()) for ids in self._conversations(folder)]
        if answers == expected:
            return logits
        greedy = self._behind_the_likeliest(answers)
        return _worst([logits, greedy])

    @cached_property
    def _generated(self) -> list[list[int]] | None:
        """Greedy answers by transformers' own `generate` under the moved prompt; None where it fails."""
        network, answers = self.reference.network, []
        for example in self.arm.examples:
            places = [place for place, token in enumerate(example.tokens) if token < 0]
            ids = token_ids(example.tokens, self.prompt.slots)
            try:
                with _looked_up(network, places, self.vectors):
                    answers.append(self._answer(network, ids))
            except Exception:
                return None
        return answers

    def _answer(self, network: Any, ids: Sequence[int]) -> list[int]:
        """What `generate` makes of token ids, up to the end of the turn."""
        tokens = torch.tensor([ids])
        settings = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "pad_token_id": 0}
        ends = sorted(self.model.end_ids)
        output = network.generate(tokens, attention_mask=torch.ones_like(tokens), eos_token_id=ends, **settings)
        answer = output[0, len(ids) :].tolist()
        return answer[: next((i for i, token in enumerate(answer) if token in ends), len(answer))]

    def _last_likelihoods(self, network: Any, folder: Path) -> Difference:
        found = []
        for ids, example in zip(self._conversations(folder), self.arm.examples, strict=True):
            plain, exact = (one[-1] for one in self._likelihoods_of_answer(example, []))
            actual = network(input_ids=ids, use_cache=False).logits[0, -1].float()[: len(exact)].log_softmax(-1)
            found.append(Difference(_largest(actual - exact), _largest(plain - exact)))
        return _worst(found)

    def _conversations(self, folder: Path) -> list[Tensor]:
        """Every query as any client of the exported folder sends it: `[1, length]`."""
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        turns = ([{"role": "user", "content": query}] for query in self.queries)
        options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        return [tokenizer.apply_chat_template(one, **options)["input_ids"] for one in turns]

    @cached_property
    def _artifact(self) -> Path:
        path = self.folder / "prompt.safetensors"
        metadata = artifact_metadata(self.prompt, self.model, self.config, [], "0" * 64, PromptMetrics())
        save_artifact(path, self.prompt, metadata)
        return path

    def _export(self, format: str) -> Path:
        folder = self.folder / format
        folder.mkdir()
        model = ModelConfig(**vars(self.config.model))
        search = SearchConfig(0, 1, 1, 1, 1)
        config = ExportConfig(
            str(folder), "warning", 0, "cpu", str(self._artifact), format, model, "copy", None, search, None, False
        )
        writer_of(format)(load_artifact(self._artifact), config, folder)
        return folder

    def _of_both(self, compute: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
        """By the reference in the model's own precision, and in float32."""
        plain = compute(self.reference.network)
        return plain, plain if self.reference.exact is self.reference.network else compute(self.reference.exact)


def _config_of(base: Path) -> OptimizeConfig:
    choices = ["model=local", f'model.path="{base}"', "task=word-problems", "template=system", f'prompt.text="{SEED}"']
    return compose([*choices, "device=cpu"])


def _of_different_length(rows: Sequence[Any], count: int) -> list[Any]:
    """From the shortest query to the longest."""
    ordered = sorted(rows, key=lambda row: (len(row.query), row.id))
    return [ordered[i * (len(ordered) - 1) // (count - 1)] for i in range(count)]


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max())


def _worst(differences: Sequence[Difference]) -> Difference:
    """Not by `max` of Python, which may pass over a number that is none."""
    found, rounding = torch.tensor([(one.found, one.rounding) for one in differences]).max(0).values.tolist()
    return Difference(found, rounding)


def check_folder(family: str, base: Path, folder: Path) -> Finding:
    """All checks of the model in `base`; what they write goes into `folder`."""
    try:
        checks = Checks(base, folder)
    except Exception as error:
        return Finding(family, dict.fromkeys(CHECKS, _failure(error, base)))
    return Finding(family, {name: checks.cell(name) for name in CHECKS}, checks.way)


def _failure(error: Exception, base: Path) -> Cell:
    """What embedgrad refuses it says; any other error is a fault."""
    if isinstance(error, EmbedgradError):
        return Cell("refused", words=str(error).replace(str(base), "MODEL"))
    return Cell("differs", words=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
