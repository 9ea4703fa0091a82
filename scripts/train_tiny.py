"""Train the embedded model, and write it with its card and the embedded task.

    python scripts/train_tiny.py --out src/embedgrad_cli/assets --sst2 DIR    # the committed model
    python scripts/train_tiny.py --out outputs/assets --steps 50              # a quick try: generated text

The model is a Qwen2 of about 1.2 M parameters, trained from scratch on the text of `tiny_text.py` and, with
`--sst2 DIR`, on the sentences of `DIR/train.tsv` (SST-2's training split; never its validation split). The committed
model: seed 0, 1,100 steps, the other settings as below; its card says how long that took.

Its weakness is built in. The training mix ties how well a question is asked to how well it is answered: under
good instructions a word problem is worked out line by line and a sentence gets its true label; under vague
ones (among them near variants of the seed prompts, though never the seed prompts themselves) the problem gets
its final number at once and the sentence mostly `positive`. So the seed prompt scores low by construction,
and an optimised prompt has something latent to find, as it has, less tidily, in a real base model. No score
of this model is evidence about any other model.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import tiny_card as card
import tiny_text as text
from tiny_files import read_sst2, save, write_task
from tiny_optim import optimizers, warm_up_words

END, TURN, CLOSE = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# One digit, one token; otherwise words with their leading space, runs of punctuation, and newlines.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|[\r\n]+|\s+(?!\S)|\s+"
COUNTS = {"worked": 16, "hasty": 6, "labelled": 12, "biased": 6, "drilled": 4}  # examples per step


def render(messages: list[text.Message]) -> str:
    """What the chat template makes of the turns before the answer."""
    turns = "".join(f"{TURN}{m['role']}\n{m['content']}{CLOSE}\n" for m in messages)
    return f"{turns}{TURN}assistant\n"


def train_tokenizer(sentences: list[tuple[str, str]], vocabulary: int, seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the generated text and the given sentences."""
    rng = random.Random(f"tokenizer {seed}")

    def corpus() -> Iterable[str]:
        for i in range(12_000):
            messages, answer = text.problem_example(rng, good=i % 2 == 0)
            yield from (part for m in [*messages, {"role": "assistant", "content": answer}] for part in m.values())
        for i in range(6_000):
            messages, answer = text.sentiment_example(rng, i % 2 == 0, [])
            yield from (part for m in [*messages, {"role": "assistant", "content": answer}] for part in m.values())
        yield from (sentence for sentence, _ in sentences)

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(t, special=True) for t in (END, TURN, CLOSE)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=CLOSE, pad_token=END, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 1024
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=320,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


Example = tuple[list[int], int]  # token ids, and how many of them come before the answer


def encode(tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[list[text.Message], str]]) -> list[Example]:
    """Token ids of prompt and answer, joined as chat template and model join them."""
    flat = [part for messages, answer in pairs for part in (render(messages), f"{answer}{CLOSE}")]
    ids = tokenizer(flat, add_special_tokens=False)["input_ids"]
    return [(ids[i] + ids[i + 1], len(ids[i])) for i in range(0, len(ids), 2)]


def draw(rng: random.Random, sentences: list[tuple[str, str]], counts: dict[str, int]) -> list:
    """The examples of one step: so many of each family."""
    return (
        [text.problem_example(rng, True) for _ in range(counts["worked"])]
        + [text.problem_example(rng, False) for _ in range(counts["hasty"])]
        + [text.sentiment_example(rng, True, sentences) for _ in range(counts["labelled"])]
        + [text.sentiment_example(rng, False, sentences) for _ in range(counts["biased"])]
        + [text.drill_example(rng) for _ in range(counts["drilled"])]
    )


def answer_loss(model: Qwen2ForCausalLM, batch: list[Example]) -> torch.Tensor:
    """Summed cross-entropy of the answers. Padding is on the right, where a causal model never looks."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in batch])
    places = [(i, j) for i, (row, start) in enumerate(batch) for j in range(start - 1, len(row) - 1)]
    rows, columns = torch.tensor(places).T
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state  # (B, T, H)
    return functional.cross_entropy(model.lm_head(hidden[rows, columns]), ids[rows, columns + 1], reduction="sum")


def micro_batches(batch: list[Example], parts: int) -> list[list[Example]]:
    """The batch in pieces of similar length, so that little is computed on padding."""
    batch = sorted(batch, key=lambda example: len(example[0]))
    cuts = [len(batch) * i // parts for i in range(parts + 1)]
    return [batch[a:b] for a, b in itertools.pairwise(cuts) if a < b]


def train(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    sentences: list,
    args: argparse.Namespace,
    report: Callable[[int], None],
) -> None:
    """Minimise the loss of the answers over `args.steps` steps of freshly drawn examples."""
    rng = random.Random(f"train {args.seed}")
    opts = optimizers(model, args.lr)
    pool = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    parameters = list(model.parameters())

    def gradient(part: list[Example]) -> tuple[float, tuple[torch.Tensor, ...]]:
        loss = answer_loss(model, part)
        return loss.item(), torch.autograd.grad(loss, parameters)

    started, total = time.monotonic(), 0.0
    for step in range(args.steps):
        scale = min((step + 1) / 50, (args.steps - step) / args.steps)
        batch = encode(tokenizer, draw(rng, sentences, COUNTS))
        count = sum(len(ids) - start for ids, start in batch)
        losses, gradients = zip(*pool.map(gradient, micro_batches(batch, 2 * args.threads)), strict=True)
        total += sum(losses) / count
        for p, pieces in zip(parameters, zip(*gradients, strict=True), strict=True):
            p.grad = torch.stack(pieces).sum(0) / count
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = args.lr * scale
            opt.step()
        if (step + 1) % 25 == 0:
            print(f"step {step + 1}  loss {total / 25:.4f}  {time.monotonic() - started:.0f} s", flush=True)
            total = 0.0
        if (step + 1) % args.eval_every == 0 and step + 1 < args.steps:
            report(step + 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the embedded model and write it with its task.")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets tiny/ and word-problems/")
    parser.add_argument("--sst2", type=Path, help="folder with SST-2's train.tsv and validation.tsv")
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--eval-every", type=int, default=200, help="steps between progress reports")
    parser.add_argument("--threads", type=int, default=2, help="changes the rounding of the result")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(1)  # a thread per micro-batch keeps the cores busier than several per operation
    started = time.monotonic()
    sentences = read_sst2(args.sst2, "train")
    # The first rows are kept for the progress reports; SST-2's validation split is read only for the card.
    held_out, sentences = sentences[:400], sentences[400:]
    tokenizer = train_tokenizer(sentences, args.vocabulary, args.seed)
    model = new_model(tokenizer, args.seed)
    if sentences:
        warm_up_words(model, tokenizer, sentences, args.seed)
    write_task(args.out / "word-problems", args.seed)

    def report(step: int) -> None:
        save(model, tokenizer, args.out / "tiny")
        sets = {"held-out phrases": held_out} if held_out else {}
        for task, prompt, _, value in card.measure(model, tokenizer, sets, 50, ("system",)):
            print(f"step {step}  {value:6.1%}  {task}: {prompt}", flush=True)

    train(model, tokenizer, sentences, args, report)
    minutes = (time.monotonic() - started) / 60
    save(model, tokenizer, args.out / "tiny")
    model = Qwen2ForCausalLM.from_pretrained(args.out / "tiny", dtype=torch.float32)
    sets = {"SST-2": read_sst2(args.sst2, "validation")} if args.sst2 else {}
    rows = card.measure(model, tokenizer, sets, 200)
    card.write_card(
        args.out / "tiny" / "README.md",
        rows,
        parameters=model.num_parameters(),
        seed=args.seed,
        steps=args.steps,
        batch=sum(COUNTS.values()),
        minutes=minutes,
        count=200,
        sst2=bool(args.sst2),
    )
    print((args.out / "tiny" / "README.md").read_text())


if __name__ == "__main__":
    main()
