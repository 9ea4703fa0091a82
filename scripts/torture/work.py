"""Commands that are tortured, each run in a process that is forked from one that has everything imported.

To start Python and import torch takes seconds; a fork takes none, and `main` runs in it as in a process of its own. The
process that forks computes nothing itself: threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pty
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PATIENCE = 300.0  # seconds after which a command counts as one that hangs
CHAT_TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
SHAPE: dict[str, Any] = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 512},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": None},
}
RUN = "run"  # the output_dir of every command
TINY = [
    *("model=local", "model.path=model", "model.dtype=float32", "device=cpu", "task.max_new_tokens=3"),
    *("task=word-problems", "task.data_dir=data", "prompt.text='Think.'", "prompt=custom"),
    *("task.split.num_train=6", "task.split.num_validation=4", "task.split.num_test=4", "evaluation.batch_size=2"),
    *("train.steps=2", "train.batch_size=3", "train.eval_every=1", "train.checkpoint_every=1"),
]
OPTIMIZE = ["optimize", *TINY, f"output_dir={RUN}", "--quiet"]
TRAINED = "trained/prompt.safetensors"
FORMATS = ("embeds", "peft", "model", "text", "hub")
COMMANDS = {
    "optimize": OPTIMIZE,
    "short": [*OPTIMIZE, "train.steps=1", "report=false"],
    "verified": [*OPTIMIZE, "objective=verified"],
    "evaluate": ["evaluate", f"artifact={TRAINED}", "device=cpu", f"output_dir={RUN}", "--quiet"],
    **{f"export {name}": ["export", f"artifact={TRAINED}", f"format={name}", f"output_dir={RUN}"] for name in FORMATS},
    "report": ["report", "trained", f"output={RUN}.html"],
    "compare": ["compare", "trained", "again", "--mixed"],
    "multirun": ["optimize", "--multirun", *TINY, f"output_dir={RUN}", "--quiet", "optimizer.lr=0.03,0.1"],
}


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or minus the signal that ended it."""

    code: int
    seconds: float
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """The last of what it said, for a report of what went wrong."""
        return f"exit code {self.code}: {self.stderr[-600:].strip() or self.stdout[-200:].strip()}"


@dataclass(frozen=True)
class Process:
    """A command that runs."""

    pid: int
    log: Path
    started: float
    terminal: int | None = None  # our end of its terminal, if it has one

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Wait for its end; kill it when patience is over (exit code -9, after `patience` seconds)."""
        status = 0
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self.started > patience:
                self.send(signal.SIGKILL)
            self.listen(0.005)
        out, err = (file.read_text(errors="replace") if file.exists() else "" for file in self.files)
        return Ended(os.waitstatus_to_exitcode(status), time.monotonic() - self.started, out, err)

    @property
    def files(self) -> tuple[Path, Path]:
        """Of stdout and stderr, where it has no terminal."""
        return self.log.with_name(f"{self.log.name}.out"), self.log.with_name(f"{self.log.name}.err")

    def without_terminal(self) -> Process:
        """Once its terminal is closed."""
        return replace(self, terminal=None)

    def listen(self, seconds: float) -> None:
        """Wait, and read what it writes to its terminal, so that it need not wait for a reader."""
        try:
            if self.terminal is not None and select.select([self.terminal], [], [], seconds)[0]:
                os.read(self.terminal, 65536)
                return
        except OSError:
            pass
        time.sleep(seconds)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(
    argv: Sequence[str], place: Path, hook: Callable[[], None] | None = None, on_terminal: bool = False
) -> Process:
    """Start a command in the folder `place`. `hook` is called in its process first."""
    log = place.with_name(f"{place.name}.{time.monotonic_ns()}")
    pid, terminal = pty.fork() if on_terminal else (os.fork(), None)
    process = Process(pid, log, time.monotonic(), terminal)
    if pid == 0:
        _child(argv, place, hook, None if on_terminal else process.files)
    return process


def run(argv: Sequence[str], place: Path, hook: Callable[[], None] | None = None) -> Ended:
    """Run a command to its end."""
    return start(argv, place, hook).wait()


def _child(argv: Sequence[str], place: Path, hook: Callable[[], None] | None, files: tuple[Path, Path] | None) -> None:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell turns off in the background
        os.chdir(place)
        for number, file in enumerate((Path(os.devnull), *files)) if files else ():
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT, 0o644), number)
        sys.argv = ["embedgrad", *argv]
        if hook is not None:
            hook()
        from embedgrad_cli.cli.main import main

        code = main(list(argv))
    except BaseException:
        with suppress(OSError):
            traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def in_child(work: Callable[[], object]) -> object:
    """What work returns in a process of its own, by way of JSON.

    Raises:
        RuntimeError: it raised something.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            with os.fdopen(write, "w") as pipe:
                json.dump(work(), pipe)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        content = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise RuntimeError("a process of the torture itself failed; its traceback is above")
    return json.loads(content)


def make_model(folder: Path) -> None:
    """A random model of one layer, with a tokenizer of bytes and few words."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|end|>", "<|turn|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *letters])}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=special[0], pad_token=special[0])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(tokenizer), eos_token_id=0, **SHAPE, initializer_range=0.3)
    Qwen2ForCausalLM(config).save_pretrained(folder)


def make_data(folder: Path) -> None:
    """A few sums."""
    folder.mkdir()
    for split, first in (("train", 0), ("validation", 10), ("test", 20)):
        rows = [{"question": f"{n}+1", "answer": f"#### {n + 1}"} for n in range(first, first + 6)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def warm_up(base: Path) -> None:
    """Make `base/model` and two finished runs, `base/trained` and `base/again`; then import what that took."""
    base.mkdir(parents=True)
    make_data(base / "data")
    in_child(lambda: make_model(base / "model"))

    def modules() -> list[str]:
        from embedgrad_cli.cli.main import main

        os.chdir(base)
        for name, more in (("trained", []), ("again", ["optimizer.lr=0.03"])):
            code = main([*OPTIMIZE, *more, f"output_dir={name}"])
            if code != 0:
                raise RuntimeError(f"an undisturbed run ends with exit code {code}")
        for command in ("evaluate", "export peft", "export model"):
            main([*COMMANDS[command], f"output_dir=warm-{command}"])
        return sorted(sys.modules)

    names = in_child(lambda: _silently(modules))
    assert isinstance(names, list)
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)
    for folder in base.glob("warm-*"):
        shutil.rmtree(folder)
    _fill_caches(base)


def _fill_caches(base: Path) -> None:
    """Compose, read and load once without a gradient, after which no process could fork and compute another."""
    from transformers import AutoModelForCausalLM

    from embedgrad_cli.cli.main import main

    with contextlib.chdir(base), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main([*OPTIMIZE, "--dry-run"])
        AutoModelForCausalLM.from_pretrained("model")


def furnish(place: Path, base: Path) -> Path:
    """A folder in which commands can be run."""
    place.mkdir(parents=True)
    for name in ("model", "data", "trained", "again"):
        (place / name).symlink_to(base / name)
    return place


def _silently(work: Callable[[], list[str]]) -> list[str]:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        return work()
