"""`format=gguf` in llama.cpp: token ids of conversations and greedy answers of llama-server beside embedgrad's own.

    python scripts/llamacpp_check.py --server FILE [--placements system] [--examples N]
    python scripts/llamacpp_check.py --server FILE --model PATH --placements system --examples 50 train.batch_size=8 …

FILE is the program llama-server (`make test-llamacpp` builds one). The model, the embedded one or another, is first
written in float32: with weights of half precision llama.cpp computes in half precision too. Further words are settings
of `embedgrad optimize`, which makes the prompts.

`--templates DIR` takes a folder of chat templates (`*.jinja`), as models are shipped with. Each gets a prompt put into
it in the ways of the export, and llama.cpp has to render conversations as transformers does.

`--quantize TYPE …` exports smaller files too, by the llama-quantize that lies beside the server, and shows what they
answer. `--as-it-is` leaves the model in its own precision: of a GGUF file, whose tensors the export copies, only the
answers are shown, because llama.cpp computes with packed weights and with activations of eight bits.

Prints for each prompt how many conversations have the tokens of training, and how many answers are those of embedgrad's
own decoding; transformers answers with the folder of `format=model` beside it. Writes DIR/llamacpp_check.json, and ends
with 1 if the tokens of a conversation differ, if a different answer is not a tie, or if the accuracy is not that of
results.json but for ties.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from embedgrad_cli.storage.files import write_json
from serve_check import CONFIG_DIR, PLACEMENTS, call, console, export, in_float32, show
from serving import llamacpp, routes
from serving.compare import Comparison, Reference, compare
from serving.reference import reference_of
from serving.shipped_templates import compare_templates


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave by way of the servers' clean-up
    shutil.rmtree(args.out, ignore_errors=True)
    model = args.model if args.as_it_is else in_float32(args.model, args.out / "base")
    settings = [f"train.steps={args.steps}", f"task.split.num_test={args.examples}", *args.settings]
    settings = ["model=local", f"model.path={model}", *settings]
    comparisons, quantised, others = list[Comparison](), list[Comparison](), dict[str, int]()
    for placement in args.placements:
        folder = args.out / placement
        run = [f"template={placement}", "task.split.num_validation=50", "device=cpu", *settings]
        call(["optimize", "--config-dir", str(CONFIG_DIR), *run, f"output_dir={folder}"])
        for name in ("model", "gguf"):
            call(export(folder, name))
        reference = reference_of(folder)
        found = routes.transformers(folder, reference.queries)
        comparisons.append(compare("transformers + model", placement, found, reference))
        with llamacpp.llama_server(args.server, folder / "gguf/model.gguf", folder / "llama-server.log") as url:
            others[placement] = other_conversations(url, folder, reference)
            of_file = quantised if args.as_it_is else comparisons
            of_file.append(answered("llama.cpp chat + gguf", url, folder, reference))
        quantised += [after_quantisation(kind, args.server, folder, reference) for kind in args.quantize]
    console.print(llamacpp.version_of(args.server))
    if args.templates is not None:
        others |= check_templates(args.templates, args.server, args.out / args.placements[0])
    show(comparisons)
    for one in quantised:
        console.print(
            f"{one.route}, {one.prompt}: {one.equal} of {one.total} equal, {one.correct} correct", markup=False
        )
    for what, count in others.items():
        console.print(f"{what}: {count} conversations are rendered, or split into tokens, otherwise", markup=False)
    routes_json = [{**asdict(one), "equal": one.equal} for one in (*comparisons, *quantised)]
    write_json(args.out / "llamacpp_check.json", {"routes": routes_json, "other_conversations": others})
    return 0 if all(one.is_explained for one in comparisons) and not any(others.values()) else 1


def answered(route: str, url: str, folder: Path, reference: Reference) -> Comparison:
    tokens = routes.max_new_tokens(folder)
    found = [llamacpp.chat(url, query, tokens) for query in reference.queries]
    return compare(route, folder.name, found, reference)


def after_quantisation(kind: str, server: Path, folder: Path, reference: Reference) -> Comparison:
    """The answers of the file with weights of fewer bits, which may be others; the prompt's vectors stay the same."""
    quantizer = server.with_name("llama-quantize")
    words = ["export", f"artifact={folder}/prompt.safetensors", "format=gguf", f"output_dir={folder}/{kind}"]
    call([*words, f"quantize={kind}", f"quantizer={quantizer}"])
    with llamacpp.llama_server(server, folder / kind / "model.gguf", folder / f"llama-server-{kind}.log") as url:
        return answered(f"llama.cpp chat + gguf, {kind}", url, folder, reference)


def other_conversations(url: str, folder: Path, reference: Reference) -> int:
    """How many conversations llama.cpp renders and splits into other tokens than training had.

    So it does with what transformers renders of longer ones, and of one with a system turn of its own; those are shown.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "model")
    first = tokenizer.convert_tokens_to_ids("<|embedgrad_0|>")
    count = 0
    for query, example in zip(reference.queries, reference.examples, strict=True):
        ids = [token if token >= 0 else first - 1 - token for token in example.tokens]
        count += llamacpp.tokens_of(url, [{"role": "user", "content": query}]) != ids
    asked, answered = ({"role": "user", "content": reference.queries[0]}, {"role": "assistant", "content": "12"})
    for messages in ([asked, answered, asked], [{"role": "system", "content": "Be brief."}, asked]):
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        if llamacpp.tokens_of(url, messages) != ids:
            console.print(f"{folder.name}: rendered otherwise than by transformers: {messages}", markup=False)
            count += 1
    return count


def check_templates(templates: Path, server: Path, folder: Path) -> dict[str, int]:
    """Print what became of each template.

    Returns: how many conversations with a prompt in them differ.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "model")
    differing = dict[str, int]()
    for one in compare_templates(templates, server, folder / "gguf/model.gguf", tokenizer, folder):
        what = f"{one.name}, {one.placement}"
        console.print(f"{what}: {one.alike} alike, {one.different} different, {one.refused} refused", markup=False)
        if one.different and one.placement != "no prompt":
            differing[what] = one.different
    return differing


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="llama.cpp's program llama-server")
    parser.add_argument("--model", default="embedded:tiny", help="a folder, a GGUF file, or a hub id")
    parser.add_argument("--placements", nargs="+", choices=PLACEMENTS, default=PLACEMENTS)
    parser.add_argument("--examples", type=int, default=100, help="test rows per placement")
    parser.add_argument("--steps", type=int, default=15, help="optimiser steps")
    parser.add_argument("--quantize", nargs="+", default=[], help="also with weights of these types, as Q8_0")
    parser.add_argument("--as-it-is", action="store_true", help="do not write the model in float32 first")
    parser.add_argument("--templates", type=Path, help="a folder of chat templates to render")
    parser.add_argument("--out", type=Path, default=Path("outputs/llamacpp"))
    parser.add_argument("settings", nargs="*", help="of embedgrad optimize, as task=reviews prompt=sentiment")
    args = parser.parse_args()
    args.server, args.out = args.server.absolute(), args.out.absolute()
    return args


if __name__ == "__main__":
    sys.exit(main())
