"""Decoder families on tiny random models: is what embedgrad computes and exports what plain transformers computes?

    python scripts/check_families.py [--only NAME …] [--markdown FILE]
    python scripts/check_families.py --model DIR [--dtype float32 bfloat16] [--markdown FILE]

Every family is checked in a process of its own; `--model` checks a real model's folder in the same way. The exit code
is 1 if anything differs. What is compared with what: `families/checks.py`; the shapes: `families/shapes.py`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")  # some virtual machines announce AMX and have none

from embedgrad_cli import assets
from families.checks import ALLOWED, CHECKS, NEW_TOKENS, ROWS, Cell, Finding, check_folder
from families.shapes import FAMILIES

SECONDS = 300  # for one family
LIBRARIES = ("torch", "transformers", "peft")
MARKS = {"equal": "=", "refused": "refused", "differs": "**differs**"}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    findings = []
    for finding in check_model(args.model, args.dtype) if args.model else check_families(args.only or list(FAMILIES)):
        print(line(finding), flush=True)
        findings.append(finding)
    if args.markdown:
        command = ["python scripts/check_families.py", *(argv or sys.argv[1:])]
        args.markdown.write_text(page(findings, " ".join(command), args.model), encoding="utf-8")
    return int(any(cell.verdict == "differs" for finding in findings for cell in finding.cells.values()))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="NAME", help="these families alone")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a model's folder instead of the families")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32"], help="of --model")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    return parser.parse_args(argv)


def check_families(names: Sequence[str]) -> Iterator[Finding]:
    """One after the other, each in a process of its own, so that none can end the table."""
    context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload(["families.checks", "transformers", "peft"])
    for name in names:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(name, sender))
        process.start()
        sender.close()
        yield _received(name, receiver, process)


def _received(name: str, receiver: Any, process: Any) -> Finding:
    words = f"no result within {SECONDS} seconds"
    try:
        if receiver.poll(SECONDS):
            return receiver.recv()
    except EOFError:
        process.join()
        words = f"its process ended with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return Finding(name, dict.fromkeys(CHECKS, Cell("differs", words=words)))


def _send(name: str, sender: Any) -> None:
    _quiet()
    with tempfile.TemporaryDirectory() as folder:
        sender.send(check_family(name, Path(folder)))


def check_family(name: str, folder: Path) -> Finding:
    """Make a tiny random model with the embedded tokenizer, and check it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    family = FAMILIES[name]
    try:
        AutoConfig.for_model(family.model_type)
    except ValueError:
        return Finding(name, {}, skipped=f"transformers {version('transformers')} does not have it")
    tokenizer = AutoTokenizer.from_pretrained(assets.resolve("embedded:tiny"))
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.model_type, **family.shape(len(tokenizer)))
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter_name, parameter in network.named_parameters():
        if parameter_name.endswith("_scale") and not parameter.any():  # nothing would be heard of what it scales
            torch.nn.init.ones_(parameter)
    return _check(name, network, tokenizer, folder)


def check_model(path: Path, dtypes: Sequence[str]) -> Iterator[Finding]:
    """A real model, copied in each precision."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _quiet()
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder:
            network = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
            yield _check(f"{path.name}, {dtype}", network, AutoTokenizer.from_pretrained(path), Path(folder))


def _check(name: str, network: Any, tokenizer: Any, folder: Path) -> Finding:
    base = folder / "base"
    network.eval().save_pretrained(base)
    tokenizer.save_pretrained(base)
    return check_folder(name, base, folder)


def _quiet() -> None:
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def line(finding: Finding) -> str:
    """For the terminal."""
    if finding.skipped:
        return f"{finding.family:20} skipped: {finding.skipped}"
    cells = "  ".join(f"{column}: {_short(cell)}" for column, cell in finding.cells.items())
    return f"{finding.family:20} {cells}  {finding.way and 'in full'}"


def _short(cell: Cell) -> str:
    if cell.difference is None:
        return f"{cell.verdict} ({cell.words[:80]})"
    rounding = f" (rounding alone {cell.rounding:.0e})" if cell.rounding else ""
    return f"{cell.verdict} {cell.difference:.0e}{rounding}"


def page(findings: Sequence[Finding], command: str, model: Path | None = None) -> str:
    """The table as Markdown. Sentences stand below it, each once.

    Args: model: the folder of the one model that was checked, if it was no list of families.
    """
    notes = dict[str, int]()

    def note(words: str) -> str:
        return f"[{notes.setdefault(words, len(notes) + 1)}]" if words else ""

    def text(cell: Cell) -> str:
        if cell.difference is None:
            return f"{MARKS[cell.verdict]} {note(cell.words)}"
        rounding = f" ({cell.rounding:.0e})" if cell.rounding else ""
        return f"{MARKS[cell.verdict]} {cell.difference:.0e}{rounding} {note(cell.words)}".rstrip()

    rows = []
    for finding in findings:
        if finding.skipped:
            cells, way = ["–"] * len(CHECKS), f"skipped {note(finding.skipped)}"
        else:
            cells = [text(finding.cells[column]) for column in CHECKS]
            way = f"in full {note(finding.way)}" if finding.way else ""
        rows.append(f"| {' | '.join([finding.family, *cells, way])} |")
    head = f"| {' | '.join(['family', *CHECKS, 'computed'])} |\n| --- |{' --- |' * (len(CHECKS) + 1)}"
    verdicts = [{cell.verdict for cell in finding.cells.values()} for finding in findings if not finding.skipped]
    equal = sum(found == {"equal"} for found in verdicts)
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    below = "\n".join(f"{number}. {' '.join(words.split())}" for words, number in notes.items())
    return INTRODUCTION.format(
        title=f"{model.name} beside plain transformers" if model else "Model families",
        models="The weights are those of the folder." if model else "The models are tiny and random and in float32.",
        command=command,
        versions=versions,
        checked=len(verdicts),
        equal=equal,
        rows=ROWS,
        tokens=NEW_TOKENS,
        allowed=ALLOWED,
    ) + "\n".join([head, *rows, "", below, ""])


INTRODUCTION = """\
# {title}

What embedgrad computes and exports, beside what plain transformers computes of the same model.
This page is the output of

    {command}

with {versions}. {checked} were checked, and {equal} are equal in every column.

{models} The reference is transformers alone: token ids, one row at a time,
without a cache. {rows} rows of different length stand under one prompt.

- **logits by ids**: log-likelihoods under the untouched prompt, against those of the text's token ids. In nats.
- **gradient**: of a prompt away from its seed, as a share of the reference gradient's length.
- **greedy answers**: up to {tokens} tokens; how much less likely than the likeliest token the reference finds each, in
  nats. 0 is the same answer.
- **model export**, **PEFT export**: log-likelihoods after the folder's own conversations and, of `format=model`, the
  answers that `generate` gives.

`=` is equal, with the largest difference: at most {allowed}, or in half precision at most twice what rounding alone
makes of the reference (in brackets). *Refused* means that embedgrad ends with the sentence below, and never with
other numbers. *In full*: this family's examples share no computation, which is slower and as exact.

"""

if __name__ == "__main__":
    sys.exit(main())
