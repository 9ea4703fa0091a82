"""The experiment of `embedgrad optimize` as people do it with PEFT, the Hugging Face `Trainer` and `generate`.

    python scripts/bench/peft_run.py OVERRIDE …

It takes the overrides of `embedgrad optimize` and prints one line of JSON: the test accuracy of each arm, where the
seconds went and the peak of the memory. Rows, splits, steps, batch size, learning rate, validations, stop strings and
graders are those of that command. The prompt is PEFT's prompt tuning, begun from the same text in front of the whole
sequence. Answers are greedy, by `generate` on left-padded batches; the best of the validations is tested.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

sys.path.insert(0, str(Path(__file__).parents[1]))

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.core.kernels.memory import peak_memory
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.storage.stopwatch import Stopwatch
from embedgrad_cli.tasks import graders
from embedgrad_cli.tasks.load import Row
from methods.peft_methods import IGNORED, Learner, prompt_tuning
from methods.problem import Problem


class Validation(TrainerCallback):
    """Validates before the first step and as often as the product, and keeps the vectors of the best."""

    def __init__(self, learner: Learner, watch: Stopwatch) -> None:
        self.learner, self.watch, self.best, self.accuracy = learner, watch, torch.empty(0), -1.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._validate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        train = self.learner.problem.config.train
        if state.global_step % train.eval_every == 0 or state.global_step == train.steps:
            self._validate()

    def _validate(self) -> None:
        learner, (vectors,) = self.learner, self.learner.parameters
        self.watch.begin("validation")
        reached = accuracy(learner, learner.wrapped, learner.prompt_template, learner.problem.splits.validation)
        if reached > self.accuracy:
            self.accuracy, self.best = reached, vectors.detach().clone()
        self.watch.begin("training")


@torch.no_grad()
def accuracy(learner: Learner, network: Any, prompt_template: PromptTemplate, rows: Sequence[Row]) -> float:
    """The share of rows whose greedy answer is right."""
    config, tokenizer = learner.problem.config, learner.model.tokenizer
    task, size, right = config.task, config.evaluation.batch_size, 0
    stops: dict[str, Any] = {"stop_strings": list(task.stop), "tokenizer": tokenizer} if task.stop else {}
    network.eval()
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        texts = [prompt_template.render(row.query).text for row in batch]
        inputs = tokenizer(
            texts,
            add_special_tokens=prompt_template.adds_special_tokens,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(learner.model.device)
        output = network.generate(**inputs, max_new_tokens=task.max_new_tokens, do_sample=False, **stops)
        answers = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, answer in zip(batch, answers, strict=True):
            grade = graders.get(task.grader, row.choices).judge(row.answer, answer.strip())
            right += getattr(grade, task.extraction).correct
    return right / len(rows)


def as_features(example: Example, virtual_tokens: int) -> dict[str, list[int]]:
    query = list(example.tokens[virtual_tokens:])
    labels = [IGNORED] * len(query) + list(example.target)
    return {"input_ids": [*query, *example.target], "attention_mask": [1] * len(labels), "labels": labels}


def train(learner: Learner, watch: Stopwatch) -> torch.Tensor:
    """Returns: the vectors of the best validation."""
    config, validation = learner.problem.config, Validation(learner, watch)
    watch.begin("encoding")
    rows = [as_features(e, learner.virtual_tokens) for e in learner.encode(learner.problem.splits.train)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=config.train.batch_size,
            max_steps=config.train.steps,
            learning_rate=config.optimizer.lr * learner.lr_unit,
            max_grad_norm=config.optimizer.max_grad_norm or 0.0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=learner.model.device.type == "cpu",
        )
        collator = DataCollatorForSeq2Seq(learner.model.tokenizer, label_pad_token_id=IGNORED)
        Trainer(learner.wrapped, arguments, train_dataset=rows, data_collator=collator, callbacks=[validation]).train()
    return validation.best


def main(overrides: Sequence[str]) -> None:
    watch = Stopwatch()
    watch.begin("reading")
    problem = Problem.of(overrides)
    watch.begin("loading")
    learner = prompt_tuning(problem, "TEXT")
    learner.model.tokenizer.pad_token = learner.model.tokenizer.pad_token or learner.model.tokenizer.eos_token
    (vectors,) = learner.parameters
    best = train(learner, watch)
    watch.begin("test")
    with torch.no_grad():
        vectors.copy_(best)
    config, model, test = problem.config, learner.model, problem.splits.test
    found = {"optimized": accuracy(learner, learner.wrapped, learner.prompt_template, test)}
    plain = learner.wrapped.get_base_model()  # frozen, and without the virtual tokens
    for name, seeds in (("none", None), ("seed", list(seeds_of(config.prompt)))):
        prompt_template = PromptTemplate(config.template, seeds, model.tokenizer, model.is_chat)
        found[name] = accuracy(learner, plain, prompt_template, test)
    print(json.dumps({"arms": found, "phases": watch.seconds, "peak_bytes": peak_memory(model.device)}))


if __name__ == "__main__":
    main(sys.argv[1:])
