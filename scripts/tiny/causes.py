# ruff: noqa: SIM905 - a list of words reads better as one string
"""Short stories about causes and intentions, the embedded model's third ability.

In the style of BIG-Bench Hard's causal judgement, whose stories come from experiments on how people judge
(Knobe, Hitchcock, Icard and others). Each kind of story has one rule, told in its function, and the model
learns these rules and no others: they simplify what people say.

    The bridge breaks if two people drive onto it at once. One alone is not enough. One day Tom and Anna both
    drove onto it. Tom ignored a sign. The bridge broke. Did Tom cause it?    -> Yes

No story asks which of two people did what: 1.2 M parameters do not learn that from a few thousand stories.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tiny.problems import HE, SHE, capital

LABELS = ("Yes", "No")
NAMES = HE + SHE


@dataclass(frozen=True)
class Case:
    """A story that ends in a question, the answer (`Yes` or `No`), and the kind of story."""

    question: str
    label: str
    kind: str


def case(rng: random.Random) -> Case:
    """A story of a random kind; the labels are equally frequent in each.

    >>> case(random.Random(0)).label in LABELS
    True
    """
    kind = rng.choice(list(KINDS))
    label = rng.choice(LABELS)
    return Case(KINDS[kind](rng, label == "Yes"), label, kind)


# What happens, if ...; what it takes; what is said afterwards.
_EVENTS = [
    ("the bridge breaks", "drive onto it", "drove onto it", "the bridge broke"),
    ("the alarm rings", "open the door", "opened the door", "the alarm rang"),
    ("the computer stops", "log in", "logged in", "the computer stopped"),
    ("the boat sinks", "step on board", "stepped on board", "the boat sank"),
    ("the light goes out", "press the button", "pressed the button", "the light went out"),
    ("the machine breaks", "pull the lever", "pulled the lever", "the machine broke"),
    ("the shelf falls", "put a box on it", "put a box on it", "the shelf fell"),
    ("the river turns brown", "pour paint into it", "poured paint into it", "the river turned brown"),
    ("the ice cracks", "walk on it", "walked on it", "the ice cracked"),
    ("the pump stops", "open the valve", "opened the valve", "the pump stopped"),
]
_DUTIES = [
    ("water the plants", "the plants died"),
    ("feed the fish", "the fish died"),
    ("lock the gate", "the sheep ran away"),
    ("oil the machine", "the machine broke"),
    ("close the window", "the rain came in"),
    ("switch off the oven", "the cake burned"),
    ("cover the boat", "the boat filled with rain"),
    ("charge the phone", "the call was lost"),
    ("wind the clock", "the clock stopped"),
    ("salt the road", "the bus slid off"),
]
_PLANS = [
    ("the new road", "the forest", "travel faster"),
    ("the factory", "the river", "make money"),
    ("the new rule", "the workers", "sell more"),
    ("the film", "the town", "be famous"),
    ("the tunnel", "the old trees", "save time"),
    ("the hotel", "the beach", "earn more"),
    ("the machine", "the farmers", "work less"),
    ("the party", "the neighbors", "have fun"),
]
_ROLES = "The mayor|The owner|The director|The boss|The builder|The manager|The king|The captain".split("|")
_AIMS = [
    ("hit the target with an arrow", "the arrow", "hit the target"),
    ("kick the ball into the goal", "the ball", "kick the ball into the goal"),
    ("throw a stone into the well", "the stone", "throw the stone into the well"),
    ("roll the coin into the box", "the coin", "roll the coin into the box"),
    ("break the jar with a ball", "the ball", "break the jar"),
    ("ring the bell with a pebble", "the pebble", "ring the bell"),
]
_RIVALS = [  # two things that can bring it about, and what they bring about
    ("the fire", "the truck", "bring down the tower"),
    ("the poison", "the flood", "spoil the well"),
    ("the hole", "the storm", "sink the boat"),
    ("the saw", "the wind", "fell the tree"),
    ("the leak", "the hammer", "empty the tank"),
    ("the rust", "the crash", "break the cart"),
    ("the frost", "the goat", "kill the plant"),
    ("the sun", "the heater", "melt the ice"),
]
_OPENERS = [
    ("the door opens", "turn a key", "turned a key", "the door opened"),
    ("the box opens", "press a button", "pressed a button", "the box opened"),
    ("the bell rings", "pull a rope", "pulled a rope", "the bell rang"),
    ("the lamp lights up", "turn a switch", "turned a switch", "the lamp lit up"),
    ("the gate lifts", "push a bar", "pushed a bar", "the gate lifted"),
    ("the engine starts", "turn a wheel", "turned a wheel", "the engine started"),
]


def _pronoun(name: str) -> str:
    return "he" if name in HE else "she"


def _takes(rng: random.Random, joint: bool, event: str, act: str) -> str:
    """The sentences that say whether it takes two people or one."""
    if joint:
        return rng.choice([
            f"{capital(event)} if two people {act} at once. One alone is not enough.",
            f"It takes two: {event} only if two people {act} at once.",
        ])  # fmt: skip
    return rng.choice([
        f"{capital(event)} if anyone should {act}. One alone is enough.",
        f"It takes only one: {event} as soon as anyone should {act}.",
    ])  # fmt: skip


def norm(rng: random.Random, yes: bool) -> str:
    """Two acted. Where both were needed, breaking a norm makes one the cause; where one was enough, keeping it.

    (Abnormal inflation and deflation: Icard, Kominsky and Knobe 2017.)
    """
    a, b = rng.sample(NAMES, 2)
    event, act, acted, happened = rng.choice(_EVENTS)
    joint = rng.random() < 0.5
    broke = f"{a} {rng.choice(['ignored a sign', 'broke the rules', 'was not allowed to'])}."
    kept = f"{a} {rng.choice(['obeyed a sign', 'followed the rules', 'was told to'])}."
    day = rng.choice(["One day", "At noon", "That morning"])
    return (
        f"{_takes(rng, joint, event, act)} {day} {a} and {b} both {acted}. {broke if yes == joint else kept} "
        f"{capital(happened)}. Did {a} cause it?"
    )


def actor(rng: random.Random, yes: bool) -> str:
    """One was enough and something happened: whoever acted is a cause, whoever did not is none."""
    a, b = rng.sample(NAMES, 2)
    event, act, acted, happened = rng.choice(_EVENTS)
    did = acted if yes else rng.choice(["stayed at home", "only watched", "refused"])
    met = rng.choice([f"{a} met {b} there.", f"{a} came with {b}.", f"{b} was away."])
    return f"{_takes(rng, False, event, act)} {met} {a} {did}. {capital(happened)}. Did {a} cause it?"


def duty(rng: random.Random, yes: bool) -> str:
    """Something was left undone: a cause if it was one's duty and one forgot it."""
    a, b = rng.sample(NAMES, 2)
    act, happened = rng.choice(_DUTIES)
    bound, forgot = (True, True) if yes else rng.choice([(True, False), (False, True)])
    had = rng.choice(["had to", "promised to", "was paid to"] if bound else ["did not have to", "was not asked to"])
    visit = rng.choice([f" while {b} was away", f" for {b}", ""])
    did = rng.choice(["forgot it", "did nothing"] if forgot else ["did it in time", "did it with care"])
    return f"{a} {had} {act}{visit}. {capital(_pronoun(a))} {did}. Later {happened}. Did {a} cause it?"


def side_effect(rng: random.Random, yes: bool) -> str:
    """A side effect nobody cared about: intended if it was foreseen and does harm, not if it helps (Knobe 2003)."""
    plan, what, aim = rng.choice(_PLANS)
    who = rng.choice([*_ROLES, *NAMES])
    harms, knew = (True, True) if yes else rng.choice([(True, False), (False, True)])
    verb, verbed = ("harm", "harmed") if harms else ("help", "helped")
    told = rng.choice(["was told", "knew"] if knew else ["was never told", "could not know"])
    cares = rng.choice([f"did not care about {what} and only wanted to {aim}", f"only wanted to {aim}"])
    return (
        f"{who} {told} that {plan} would {verb} {what}. {who} {cares}. So {plan} came, and {what} "
        f"{'was' if what[-1] != 's' else 'were'} {verbed}. Did {_within(who)} intentionally {verb} {what}?"
    )


def skill(rng: random.Random, yes: bool) -> str:
    """Someone wanted it and it happened: intended if by skill, not if by a slip."""
    a = rng.choice(NAMES)
    he, his = _pronoun(a), "his" if a in HE else "her"
    aim, thing, did = rng.choice(_AIMS)
    trained = rng.choice(
        [f"{capital(he)} was an expert.", f"{capital(he)} had trained for years.", f"{capital(he)} was new to it."]
    )
    if yes:
        way = rng.choice(
            [f"{capital(he)} aimed well, and it worked as planned.", f"{capital(thing)} flew straight there."]
        )
    else:
        way = rng.choice(
            [
                f"But {his} hand slipped, and the wind turned {thing}.",
                f"{capital(he)} stumbled, and by chance it went so.",
            ]
        )
    return f"{a} wanted to {aim}. {trained} {way} Did {a} intentionally {did}?"


def preemption(rng: random.Random, yes: bool) -> str:
    """Two things are under way: the one that comes first is the cause, the one that is overtaken is not."""
    slow, fast, what = rng.choice(_RIVALS)
    first, second = rng.sample([slow, fast], 2)
    a = rng.choice(NAMES)
    started = rng.choice([f"{a} saw {slow} and {fast}.", f"{a} knew that {slow} or {fast} would {what}."])
    late = rng.choice([
        f"{capital(first)} was there first, and {second} came too late to {what}.",
        f"Long before {second}, {first} was there to {what}.",
    ])  # fmt: skip
    return f"{started} {late} Did {first if yes else second} {what}?"


def necessary(rng: random.Random, yes: bool) -> str:
    """Necessary is what it would not have happened without."""
    return _both_acted(rng, joint=yes, asked="necessary")


def sufficient(rng: random.Random, yes: bool) -> str:
    """Sufficient is what would have done it alone."""
    return _both_acted(rng, joint=not yes, asked="sufficient")


def _both_acted(rng: random.Random, joint: bool, asked: str) -> str:
    a, b = rng.sample(NAMES, 2)
    event, act, acted, happened = rng.choice([*_OPENERS, *_EVENTS])
    how = rng.choice([f"{a} and {b} both {acted}.", f"Both {a} and {b} {acted}."])
    who = rng.choice([a, b])
    return f"{_takes(rng, joint, event, act)} {how} {capital(happened)}. Was it {asked} that {who} {acted}?"


def _within(who: str) -> str:
    """`The mayor` within a sentence."""
    return who[0].lower() + who[1:] if who.startswith("The ") else who


KINDS: dict[str, Callable[[random.Random, bool], str]] = {
    "norm": norm,
    "actor": actor,
    "duty": duty,
    "side-effect": side_effect,
    "skill": skill,
    "pre-emption": preemption,
    "necessary": necessary,
    "sufficient": sufficient,
}
