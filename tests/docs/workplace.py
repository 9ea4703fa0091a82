"""A folder in which the documentation's commands run in seconds: small data, a short run, a model under its name."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.chat_server import chat_server
from tests.conftest import make_network, make_tokenizer
from tests.docs.snippets import Snippet, fences, words_of
from tests.gguf_models import write_gguf

from embedgrad_cli import assets
from embedgrad_cli.cli.main import main

# Settings that make a command short. None is set that the command gives itself, but for the search's budget.
TRAINING = {"train.steps": "1", "train.batch_size": "2"}
ROWS = {"task.split.num_train": "6", "task.split.num_validation": "2", "task.split.num_test": "2"}
ANSWERS = {"task.max_new_tokens": "4"}
SEARCH = {"search.budget": "100", "search.candidates": "2", "search.top_k": "2", "search.batch_size": "2"}
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
NUM_ROWS = 240  # more than the 200 that several tasks hold out of train


class Workplace:
    """Runs snippets as they stand: placeholders get a value, and settings that save time are added.

    Args:
        folder: made by `furnish`. What the documentation takes for granted is run in it at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed: dict[str, str] = {}  # by every command that was run
        self.namespace: dict[str, Any] = {}  # of the Python blocks
        self.command("embedgrad optimize output_dir=outputs/demo")
        self.command("embedgrad optimize output_dir=outputs/b optimizer.lr=0.3")
        self.command("embedgrad evaluate artifact=outputs/demo/prompt.safetensors output_dir=outputs/answers")
        shutil.copytree(folder / "outputs/demo", folder / "outputs/a")
        for name in ("prompt.safetensors", "FILE"):
            shutil.copyfile(folder / "outputs/demo/prompt.safetensors", folder / name)

    def run(self, snippet: Snippet) -> None:
        """Run a snippet; a command that was run before, here or on another page, is not run again.

        Raises:
            AssertionError: a command's exit code is not 0.
        """
        if snippet.language == "bash":
            self.command(snippet.text)
        else:
            self.python(snippet)

    def command(self, text: str) -> str:
        """Run a command of the shell. Returns: what it printed."""
        program, *words = words_of(text)
        assert program == "embedgrad", f"it is not known how to run {text!r}; if it cannot run here, NOT_RUN says why"
        name = " ".join(words)
        if name not in self.printed:
            complete = [*filled(words), *self.savings(words)]
            out, err = io.StringIO(), io.StringIO()
            with (
                answered(complete) as complete,
                contextlib.chdir(self.folder),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                if words[0] == "export":  # another page's export of that name
                    for folder in (word.removeprefix("output_dir=") for word in complete if "output_dir=" in word):
                        shutil.rmtree(folder, ignore_errors=True)
                code = main(complete)
            assert code == 0, f"{text.strip()}\nrun as {complete}\nended with {code}: {err.getvalue()}"
            self.printed[name] = out.getvalue()
        return self.printed[name]

    def python(self, snippet: Snippet) -> None:
        """Run a block of Python after those before it."""
        if not self.namespace:  # README.md takes both for granted
            from transformers import AutoModelForCausalLM, AutoTokenizer

            self.namespace["model"] = AutoModelForCausalLM.from_pretrained(self.folder / "MODEL")
            self.namespace["tokenizer"] = AutoTokenizer.from_pretrained(self.folder / "MODEL")
        with contextlib.chdir(self.folder):
            exec(compile(snippet.text, snippet.source, "exec"), self.namespace)

    def savings(self, words: Sequence[str]) -> list[str]:
        """Settings that leave a command what it is and make it short, and a run directory of its own."""
        verb, given = words[0], {word.partition("=")[0] for word in words if word != "output_dir=DIR"}
        if verb not in ("optimize", "evaluate", "export") or given & {"--help", "--regrade"}:
            return []
        settings = {"device": "cpu", "output_dir": f"outputs/command-{len(self.printed)}"}
        if verb == "optimize":
            settings |= TRAINING
        if verb == "optimize" or "task" in given:  # else the rows are the artifact's, and few already
            settings |= ROWS | ANSWERS
        if given & {"push", "--push"}:
            settings["yes"] = "true"
        if "quantize" in given:
            settings["quantizer"] = str(self.folder / "llama-quantize")
        settings = {key: value for key, value in settings.items() if key not in given}
        if "search.budget" in given:
            settings |= SEARCH
        return [f"{key}={value}" for key, value in settings.items()]


@contextlib.contextmanager
def answered(words: list[str]) -> Iterator[list[str]]:
    """The words with the address of a server that is there, if they name one."""
    if not any(ADDRESS.search(word) for word in words):
        yield words
        return
    with chat_server(lambda messages: "#### 1") as chat:
        yield [ADDRESS.sub(chat.url, word) for word in words]


def filled(words: Sequence[str]) -> list[str]:
    """The words with a value for each placeholder that stands for something else in every command."""
    tasks = words[2:3] if words[:2] == ["tasks", "show"] else [w[5:] for w in words if w.startswith("task=")]
    values = {
        "task.data_dir=DIR": f"task.data_dir=data/{''.join(tasks)}",
        "model.path=DIR": "model.path=MODEL",
        "model.path=FOLDER": "model.path=MODEL",
        "DIR": "configs",  # of --config-dir
    }
    if "--regrade" in words:
        values["output_dir=DIR"] = "output_dir=outputs/answers"
    return [values.get(word, word) for word in words if word in values or word != "output_dir=DIR"]


def furnish(folder: Path) -> None:
    """MODEL, MODEL.gguf, rows for every task whose data the pages call DIR, and the tasks that they define.

    Beside them a stand-in for llama.cpp's program, which copies.
    """
    shutil.copytree(assets.resolve("embedded:tiny"), folder / "MODEL")
    tokenizer = make_tokenizer()
    write_gguf(folder / "MODEL.gguf", make_network("qwen2", len(tokenizer)), tokenizer)
    (folder / "llama-quantize").write_text('#!/bin/sh\ncp "$3" "$4"\n')
    (folder / "llama-quantize").chmod(0o755)
    data, numbers = folder / "data", range(NUM_ROWS)
    for split in ("train", "test"):
        rows = [{"question": f"In {split}, what is {n} + {n}?", "answer": f"#### {2 * n}"} for n in numbers]
        write(data / "gsm8k" / f"{split}.jsonl", map(json.dumps, rows))
    for split in ("train", "math500"):
        sums = [{"problem": f"In {split}, ${n} + {n}$?", "solution": rf"$\boxed{{{2 * n}}}$"} for n in numbers]
        write(data / "math" / f"{split}.jsonl", (json.dumps(row | {"level": 1, "subject": "sums"}) for row in sums))
    for split in ("train", "validation"):
        reviews = [f"a {'fine' if n % 2 else 'dull'} film of {split}, number {n}\t{n % 2}" for n in numbers]
        write(data / "sst2" / f"{split}.tsv", ["sentence\tlabel", *reviews])
    options = "\nOptions:\n(A) the owl\n(B) the crow"
    write_examples(data / "causal-judgement" / "causal_judgement.json", "Did Ann cause fall {}?", "Yes", "No")
    write_examples(data / "bbh" / "snarks.json", "Which of pair {} is sarcastic?" + options, "(A)", "(B)")
    write_examples(data / "bbh" / "boolean_expressions.json", "True, {} times, is", "True", "False")
    write_examples(data / "bbh" / "object_counting.json", "I have {} plums and an owl. How many?", "3", "4")

    write(folder / "configs" / "task" / "tickets.yaml", [block("docs/own-csv.md", "yaml", "name: tickets")])
    for split in ("train", "test"):
        tickets = [f"{split} {n},I paid {n} times.,{n % 2}" for n in numbers]
        write(folder / "path/to/folder" / f"{split}.csv", ["subject,body,category", *tickets])
    write(folder / "tickets" / "task" / "tickets.yaml", [block("docs/tasks.md", "yaml", "name: tickets")])
    write(folder / "rewards.py", [block("docs/objectives.md", "python", "def short_and_right")])
    write(folder / "tickets" / "train.csv", [block("docs/tasks.md", "csv", "number,subject,body")])


def block(page: str, language: str, words: str) -> str:
    """The block of a page that holds these words."""
    (text,) = [text for known, text in fences(page) if known == language and words in text]
    return text.rstrip("\n")


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_examples(path: Path, question: str, *targets: str) -> None:
    """A file in the form of BIG-Bench Hard."""
    examples = [{"input": question.format(n), "target": targets[n % len(targets)]} for n in range(NUM_ROWS)]
    write(path, [json.dumps({"examples": examples})])
