"""Real rows: a training step against PEFT prompt tuning in the Hugging Face `Trainer`.

    python scripts/bench_trainer.py --data DIR [--tokenizer DIR] [--tasks sst2 gsm8k] [--steps 20] [--json FILE]

DIR holds sst2/train.tsv and gsm8k/train.jsonl (and their test files); the tokenizer's folder, by default
DIR/tokenizers/qwen2.5, gives real lengths and a real vocabulary to a small body with random weights.

Both sides start from the same seed prompt in front of the same tokens ("{prompt}\\n{query}\\n", then the answer), see
the same rows in the same order in the same batches, and take AdamW steps with gradients clipped at 1. The Trainer runs
as people run it: `DataCollatorForSeq2Seq`, which pads a batch to its longest row and keeps the loss to the answer
(`DataCollatorForLanguageModeling` pads alike and takes the loss on the query too: no less work), no logging, no saving,
no evaluation. Ours is `Forward.accumulate_gradient` with the product's own optimiser.

ratio         the Trainer's seconds per step over ours; each the mean over the same steps after the first ones, the
              median of runs that alternate
loss_error    relative difference of the losses of the first batch
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from bench.models import ModelSpec, language_model
from bench.output import machine, parser, ratio, show, spec_of
from bench.steps import IGNORED, peft_model
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.core.passes.batching import training_batches
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded, encode
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.tasks.load import load
from embedgrad_cli.training.optimizer import make_optimizer
from methods.problem import compose

TASKS = {"sst2": ("sentiment", 32), "gsm8k": ("step-by-step", 8)}  # seed prompt, examples per batch
WARM_UP = 3  # steps that are not counted
LR = 1e-3
COLUMNS = ["task", "prompt", "mean_length", "batch", "steps", "ratio", "loss_error", "seconds", "trainer_seconds"]


@dataclass(frozen=True)
class Workload:
    """What both sides train on: `batches[step]`, and the prompt they start from."""

    config: OptimizeConfig
    network: Any
    tokenizer: Any
    encoded: Encoded
    batches: list[list[Example]]

    @property
    def seed_prompt(self) -> SoftPrompt:
        return SoftPrompt.from_seed(self.encoded.slots, language_model(self.network))


def prepare(task: str, network: Any, tokenizer: Any, data: Path, steps: int, batch_size: int | None) -> Workload:
    prompt, default_size = TASKS[task]
    choices = [f"task={task}", f"task.data_dir={data / task}", f"prompt={prompt}", "template=before-query"]
    config = compose(choices)
    prompt_template = PromptTemplate(config.template, [str(config.prompt.text)], tokenizer, is_chat=False)
    rows = load(config.task, config.seed).train
    model = language_model(network, tokenizer)
    encoded = encode(rows, prompt_template, model, append_end_token=config.task.kind == "generation")
    batches = training_batches(encoded.examples, batch_size or default_size, config.seed, 0)
    return Workload(config, network, tokenizer, encoded, list(islice(batches, steps)))


def our_run(work: Workload) -> tuple[float, float]:
    """Returns: seconds per step, and the first loss."""
    prompt = work.seed_prompt
    forward = Forward(language_model(work.network), work.encoded.examples)
    optimizer = make_optimizer(work.config.optimizer, prompt)
    for group in optimizer.param_groups:
        group["lr"] = LR
    losses, ends = [], []
    for batch in work.batches:
        optimizer.zero_grad()
        losses.append(forward.accumulate_gradient(batch, prompt))
        clip_grad_norm_([prompt.vectors], 1.0)
        optimizer.step()
        ends.append(now())
    return per_step(ends), losses[0].item()


class Clock(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(now())


def trainer_run(work: Workload) -> float:
    """Returns: seconds per step of PEFT in the Trainer."""
    prompt, clock = work.seed_prompt, Clock()
    rows = [as_features(example, len(prompt.vectors)) for batch in work.batches for example in batch]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=len(work.batches[0]),
            max_steps=len(work.batches),
            learning_rate=LR,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            train_sampling_strategy="sequential",  # the rows are shuffled already, as ours are
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=work.network.device.type == "cpu",
        )
        wrapped = peft_model(work.network, prompt.vectors.detach())
        collator = DataCollatorForSeq2Seq(work.tokenizer, label_pad_token_id=IGNORED)
        Trainer(wrapped, arguments, train_dataset=rows, data_collator=collator, callbacks=[clock]).train()
    return per_step(clock.ends)


def trainer_loss(work: Workload) -> float:
    """PEFT's loss on the first batch, collated as in the Trainer, at the same prompt."""
    prompt = work.seed_prompt
    rows = [as_features(example, len(prompt.vectors)) for example in work.batches[0]]
    batch = DataCollatorForSeq2Seq(work.tokenizer, label_pad_token_id=IGNORED)(rows).to(work.network.device)
    with torch.no_grad():
        return peft_model(work.network, prompt.vectors.detach())(**batch).loss.item()


def as_features(example: Example, num_tokens: int) -> dict[str, list[int]]:
    """A row of PEFT's: the example's tokens without the prompt, which stands in front, and the answer's labels."""
    query = example.tokens[num_tokens:]
    ids = [*query, *example.target]
    labels = [IGNORED] * len(query) + list(example.target)
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def per_step(ends: Sequence[float]) -> float:
    return (ends[-1] - ends[WARM_UP - 1]) / (len(ends) - WARM_UP)


def bench(task: str, spec: ModelSpec, work: Workload, repeats: int) -> dict[str, Any]:
    runs = [(our_run(work), trainer_run(work)) for _ in range(repeats)]
    seconds = statistics.median(ours for (ours, _), _ in runs)
    trainer_seconds = statistics.median(theirs for _, theirs in runs)
    loss, expected = runs[0][0][1], trainer_loss(work)
    return {
        "task": task,
        "prompt": work.encoded.slots.num_tokens,
        "mean_length": round(statistics.mean(e.length for batch in work.batches for e in batch), 1),
        "batch": len(work.batches[0]),
        "steps": len(work.batches) - WARM_UP,
        "ratio": ratio(trainer_seconds, seconds),
        "loss_error": abs(loss - expected) / expected,
        "seconds": seconds,
        "trainer_seconds": trainer_seconds,
        "machine": machine(spec),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds sst2/ and gsm8k/")
    arguments_of.add_argument("--tokenizer", type=Path, metavar="DIR", help="default: DIR/tokenizers/qwen2.5")
    arguments_of.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    arguments_of.add_argument("--steps", type=int, default=20, help=f"{WARM_UP} more come first (default 20)")
    arguments_of.add_argument("--batch", type=int, help="examples per batch (default: the task's)")
    options = arguments_of.parse_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer or options.data / "tokenizers" / "qwen2.5")
    spec = spec_of(options, vocabulary=None if options.config else len(tokenizer))
    network, rows = spec.make(), []
    for task in options.tasks:
        work = prepare(task, network, tokenizer, options.data, options.steps + WARM_UP, options.batch)
        rows.append(bench(task, spec, work, options.repeats))
    show(f"one step against PEFT in the Trainer: {machine(spec)}", rows, COLUMNS, options.json)


if __name__ == "__main__":
    main()
