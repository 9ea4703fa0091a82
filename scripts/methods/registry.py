"""The methods by name, in the order of what they cost, and the learning rates that are tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from embedgrad_cli.errors import UserError

from .ours import EmbedGrad
from .peft_methods import Peft, lora, prompt_tuning
from .problem import Method
from .table import TITLES
from .text_search import Searched
from .untrained import Instructions, Untrained

PROMPT_RATES = (0.03, 0.1, 0.3, 1.0)  # in units of the embedding table's RMS
LORA_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
TINY_LORA_RATES = (1e-3, 3e-3, 1e-2, 3e-2)  # the embedded model's
LONG_PROMPT = 20
NOT_BY_DEFAULT = ("peft-vocab",)


def _peft(name: str, init: str, num_tokens: int | None = None) -> Peft:
    return Peft(name, TITLES[name], PROMPT_RATES, partial(prompt_tuning, init=init, num_tokens=num_tokens))


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(Untrained(name, TITLES[name]) for name in ("none", "bare", "seed")),
        Instructions("instructions", TITLES["instructions"]),
        EmbedGrad("embedgrad", TITLES["embedgrad"], PROMPT_RATES),
        EmbedGrad("embedgrad-free", TITLES["embedgrad-free"], PROMPT_RATES, trust_region=False),
        _peft("peft-text", "TEXT"),
        _peft("peft-random", "RANDOM"),
        _peft("peft-vocab", "SAMPLE_VOCAB"),
        _peft("peft-text-20", "TEXT", LONG_PROMPT),
        _peft("peft-random-20", "RANDOM", LONG_PROMPT),
        Peft("lora", TITLES["lora"], LORA_RATES, lora),
        Searched("text-search", TITLES["text-search"]),
    )
}


def chosen_methods(
    names: Sequence[str], rates: Mapping[str, Sequence[float]], is_tiny: bool, instructions: Path | None, budget: int
) -> list[Method]:
    """The named methods, the cheapest first, with the learning rates that were given for them."""
    if unknown := sorted(set(rates) - {name for name in METHODS if METHODS[name].rates}):
        raise UserError(f"--rates {unknown[0]}=…: no method of that name has a learning rate.")
    methods = []
    for name, method in METHODS.items():
        if name not in names:
            continue
        if isinstance(method, Instructions):
            method = replace(method, file=instructions)
        if isinstance(method, Searched):
            method = replace(method, budget=budget)
        if name == "lora" and is_tiny:
            method = replace(method, rates=TINY_LORA_RATES)
        methods.append(replace(method, rates=tuple(rates.get(name, method.rates))))
    return methods
