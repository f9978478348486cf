"""Text → rewritten text: a blunt, hasty message becomes a polite letter of two or three sentences.

    Hey Marsen, gimme the red folder b4 noon. Now! → Dear Marsen, could you please give me the red
    folder before noon? Thank you for your quick help.

The input decides the answer: each kind of bluntness has one polite form, each short form one
spelling, an urgent ending one way of thanks. So BLEU is meaningful, while a copy of the input
scores low. Names and the things asked for are entities: each belongs to one part only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from edgeprefix.demo.tasks.task import DemoRow, DemoTask, Part, cut, draw_until
from edgeprefix.demo.tasks.words import capital, items, lines, made_up

_GREETINGS = items("Hey, Hi, Yo, Oi, Listen, Look, Hey there, Well")
_URGENT = items("Now!, Hurry up!, Right now!, Quick!, Move!, Be quick!, Chop chop!, No excuses!")
_CALM = items("Thx., Cheers., OK?, Got it?, Ta., Bye., That's it., Right?")

_DESCRIBED = items("""
    red, blue, green, black, white, grey, yellow, old, new, small, big, second, third, last, spare, wooden, heavy, long,
    missing""")
_NOUNS = items("""
    folder, lamp, ladder, key, chair, desk, printer, bag, box, tent, bicycle, kettle, jacket, notebook, letter, ticket,
    report, drill, map, camera, invoice, badge, parcel, projector, cable, screen, fan, heater, trolley, table, shelf, clock,
    brush, bucket, saw, phone, keyboard, contract, menu, list, photo, drawing, plan, sample, form, receipt, catalogue,
    poster, banner, curtain, carpet, blanket, pillow, helmet, rope, torch, battery, charger, mirror, basket""")
_TIMES = tuple(
    line.partition("/")[::2]
    for line in lines("""
    asap/as soon as possible
    tmrw/tomorrow
    2day/today
    b4 noon/before noon
    b4 lunch/before lunch
    b4 six/before six
    on Mon/on Monday
    on Tue/on Tuesday
    on Wed/on Wednesday
    on Thu/on Thursday
    on Fri/on Friday
    2nite/tonight
    this wk/this week
    next wk/next week
    /
    /
    /
    /
""")
)
_FETCH = tuple(
    line.partition("/")[::2]
    for line in lines("""
    gimme/give me
    send me/send me
    bring me/bring me
    get me/get me
    lend me/lend me
    show me/show me
    find me/find me
    fix/repair
    move/move
    clean/clean
    pack/pack
    check/check
    grab me/bring me
    chuck out/throw away
    dump/throw away
    pick up/collect
""")
)
_STOP = tuple(
    tuple(line.split("/"))
    for line in lines("""
    touch/touching
    lose/losing
    use/using
    paint/painting
    sell/selling
    open/opening
    block/blocking
    hide/hiding
    kick/kicking
    drop/dropping
""")
)


@dataclass(frozen=True)
class Manner:
    """One way of being blunt, and what it is in polite words. `{thing}`, `{verb}`, `{kind}` and
    `{when}` are filled in.
    """

    blunt: tuple[str, ...]
    polite: str
    verbs: Sequence[Sequence[str]] = ()
    """Pairs of the blunt and the polite verb."""
    timed: bool = True


_ASK = Manner(
    (
        "{verb} {thing}{when}",
        "{verb} {thing}{when}",
        "just {verb} {thing}{when}",
        "u {verb} {thing}{when}",
    ),
    "could you please {verb} {thing}{when}?",
    _FETCH,
)
_MANNERS: tuple[Manner, ...] = (
    _ASK,
    _ASK,
    _ASK,
    Manner(
        ("I want {thing}{when}", "I wanna have {thing}{when}", "I need {thing}{when}"),
        "I would like to have {thing}{when}, please.",
    ),
    Manner(
        ("where's {thing}", "where the heck is {thing}", "so where is {thing}"),
        "could you please tell me where {thing} is?",
        timed=False,
    ),
    Manner(
        ("why is {thing} so late", "{thing} is late again", "how come {thing} is late"),
        "may I ask why {thing} is late?",
        timed=False,
    ),
    Manner(
        ("don't {verb} {thing}", "stop {kind} {thing}", "quit {kind} {thing}"),
        "would you mind not {kind} {thing}?",
        _STOP,
        timed=False,
    ),
    Manner(
        ("u broke {thing}", "{thing} is bust", "{thing} is broken, fix it"),
        "I am afraid that {thing} is broken.",
        timed=False,
    ),
    Manner(
        ("u forgot {thing}", "u forgot {thing} again", "{thing} isn't here"),
        "I am afraid that {thing} is not here.",
        timed=False,
    ),
    Manner(
        ("lemme have {thing}{when}", "lemme take {thing}{when}", "I'm taking {thing}{when}"),
        "would you mind if I took {thing}{when}?",
    ),
)


def _draw(rng: Random, part: Part) -> DemoRow:
    name, thing = draw_until(made_up, rng, part), _thing(rng, part)
    manner = rng.choice(_MANNERS)
    blunt, polite = _both(rng, manner, thing)
    urgent = rng.random() < 0.5
    ending = rng.choice(_URGENT if urgent else _CALM)
    thanks = "Thank you for your quick help." if urgent else "Thank you very much."
    roll = rng.random()
    if roll < 0.6:
        opening = f"{rng.choice(_GREETINGS)} {name}, {blunt}"
    else:
        opening = f"{name}, {blunt}" if roll < 0.8 else f"{name}! {capital(blunt)}"
    return DemoRow(
        input=f"{opening}. {ending}",
        references=(f"Dear {name}, {polite} {thanks}",),
        entities=(name, thing),
    )


def _both(rng: Random, manner: Manner, thing: str) -> tuple[str, str]:
    """The blunt and the polite form of one wish."""
    short, spelled = rng.choice(_TIMES) if manner.timed else ("", "")
    verbs = rng.choice(manner.verbs) if manner.verbs else ("", "")
    blunt, polite = rng.choice(manner.blunt), manner.polite
    return (
        _fill(blunt, thing, verbs[0], verbs[1], short),
        _fill(polite, thing, verbs[1], verbs[1], spelled),
    )


def _fill(template: str, thing: str, verb: str, kind: str, when: str) -> str:
    return template.format(thing=thing, verb=verb, kind=kind, when=f" {when}" if when else "")


def _thing(rng: Random, part: Part) -> str:
    """The noun decides the part."""
    noun = rng.choice(cut(_NOUNS, part))
    owner = rng.choice(("the", "the", "my", "your"))
    return f"{owner} {rng.choice(_DESCRIBED)} {noun}" if rng.random() < 0.6 else f"{owner} {noun}"


POLITE = DemoTask(
    name="polite",
    title="text → rewritten text",
    metric="bleu",
    draw=_draw,
)
