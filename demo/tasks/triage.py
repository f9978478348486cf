"""Text → label: what a customer's message is about, for the desk that answers it.

    Hi, my parcel came on Monday, but nobody could tell me anything about the refund.
    → refund

Most messages mention two of the six subjects: one that is settled, and one that is the matter. So
the word alone does not give the answer, the sentence around it does. Both kinds of sentences
(frames) are entities: each belongs to one part only, and no test message says what is the matter,
or what is settled, in the words of a training message.
"""

from __future__ import annotations

import re
from random import Random

from edgeprefix.demo.tasks.task import DemoRow, DemoTask, Part, cut
from edgeprefix.demo.tasks.words import capital, items, lines

LABELS = items("invoice, parcel, refund, password, repair, price")

MATTERS = lines("""
    there is a problem with {thing}
    I have a question about {thing}
    nobody could tell me anything about {thing}
    please have a look at {thing}
    I am writing because of {thing}
    something is wrong with {thing}
    I am calling about {thing}
    can you tell me more about {thing}
    who takes care of {thing}
    I need help with {thing}
    what about {thing}
    I do not understand {thing}
    it is about {thing}
    my question is about {thing}
    my wife asked me to write about {thing}
    I would like to talk to somebody about {thing}
    I have waited for days for an answer about {thing}
    who can help me with {thing}
    please write to me about {thing}
    last week I called about {thing}
    I was told to write to you about {thing}
    I am not happy with {thing}
    I am worried about {thing}
    is there any news about {thing}
    please explain {thing}
    whom do I ask about {thing}
    I hope that you can help me with {thing}
    there seems to be a mistake with {thing}
    I wrote to you in May about {thing}
    could somebody check {thing}
    the matter is {thing}
    please call me back about {thing}
    I could not find anything about {thing}
    this is my second message about {thing}
    the only trouble is {thing}
    I want to complain about {thing}
    we have had nothing but trouble with {thing}
    I am not sure about {thing}
    I would be glad to hear about {thing}
    I am confused by {thing}
    a friend told me to ask about {thing}
    for weeks I have asked about {thing}
    do you know anything about {thing}
    I expect an answer about {thing}
    I must speak to somebody about {thing}
    no one answers my questions about {thing}
    where can I read about {thing}
    I have heard nothing about {thing}
    what has happened with {thing}
    I am angry about {thing}
    you have forgotten {thing}
    I am still waiting for news of {thing}
    how much longer must I wait for {thing}
    who is to blame for {thing}
    nothing is right with {thing}
    I cannot make sense of {thing}
    please do something about {thing}
    I have not been told about {thing}
    can I speak to the person who deals with {thing}
    you never wrote to me about {thing}
""")
SETTLED = lines("""
    {thing} is fine
    thank you for {thing}
    I am happy with {thing}
    {thing} was no problem
    you were quick with {thing}
    never mind {thing}
    {thing} is settled
    all is well with {thing}
    somebody has already helped me with {thing}
    there is no hurry with {thing}
    {thing} is all right now
    I have no more questions about {thing}
    you have already sorted out {thing}
    I do not mean {thing}
    {thing} is not the matter
    everything was right with {thing}
    I have no complaint about {thing}
    {thing} is as it should be
    your colleague has taken care of {thing}
    forget about {thing}
    I understand {thing} now
    {thing} was just as you said
    we have agreed on {thing}
    I can wait for {thing}
    {thing} is good
    you may forget {thing}
    nothing is wrong with {thing}
    I thank you for your help with {thing}
    my son has dealt with {thing}
    {thing} has been dealt with
    you have answered me about {thing}
    I know enough about {thing}
    {thing} does not worry me
    I am glad about {thing}
    well done with {thing}
""")

_ITEMS = items("""
    kettle, lamp, toaster, fan, heater, mixer, vacuum cleaner, drill, clock, radio, iron, blender, mower, juicer, printer,
    hair dryer, razor, coffee machine, sewing machine, dish rack, garden hose, tent, bicycle, scale, camera, speaker""")
_OWNERS = ("the",) * 3 + ("my",) * 3 + ("your", "this")
_AFTER = {
    "invoice": items("for the {item}, from {month}, for my {item}"),
    "parcel": items("with the {item}, from {month}, with my {item}"),
    "refund": items("for the {item}, from {month}, for my {item}"),
    "password": items("for my account, for your website, from {month}"),
    "repair": items("of the {item}, from {month}, of my {item}"),
    "price": items("of the {item}, in your catalogue, of a new {item}"),
}
_MONTHS = items("January, March, April, May, June, July, August, October")
_GREETINGS = ("",) * 6 + items(
    "Hello, Hi, Good morning, Good evening, Dear team, Hi there, Hello again, Excuse me, Help, Hey"
)
_CONTEXT = ("",) * 12 + lines("""
    I ordered the {item} in {month}.
    I bought a {item} from you.
    My order number is {number}.
    I have been a customer for years.
    My name is (Anna|Peter|Maria|Tom|Ruth|Omar).
    I live in (a village|the city|Leeds|Bristol).
    The {item} was a present for my (mother|son|brother).
    It is the {item} in (red|blue|green|white).
""")
_ENDS = ("",) * 9 + items(
    "Thank you., Thanks a lot., Please help., Please answer soon., Many thanks."
)
_QUESTION = re.compile(r"^(can|could|do|how|where|what|who|whom|is)\b")
_CHOICE = re.compile(r"\(([^()]+\|[^()]+)\)")


def _draw(rng: Random, part: Part) -> DemoRow:
    label, other = rng.sample(LABELS, 2)
    matter, settled = rng.choice(cut(MATTERS, part)), rng.choice(cut(SETTLED, part))
    about = matter.replace("{thing}", _thing(rng, label))
    beside = settled.replace("{thing}", _thing(rng, other))
    roll = rng.random()
    if roll < 0.15:
        return DemoRow(input=_message(rng, [about]), references=(label,), entities=(matter,))
    told = (
        [f"{beside}, but {about}"]
        if roll < 0.45
        else [beside, about]
        if roll < 0.8
        else [about, beside]
    )
    return DemoRow(input=_message(rng, told), references=(label,), entities=(matter, settled))


def _thing(rng: Random, label: str) -> str:
    """ "my parcel", "the price of the kettle", "the last invoice"."""
    owner = "the" if label == "price" else rng.choice(_OWNERS)
    which = (
        rng.choice(("last ", "new ", "first ")) if rng.random() < 0.2 and label != "price" else ""
    )
    after = f" {rng.choice(_AFTER[label])}" if rng.random() < 0.35 else ""
    return f"{owner} {which}{label}{after}"


def _message(rng: Random, told: list[str]) -> str:
    """What is told, with greeting, context and good-bye; one item throughout."""
    pieces = [
        rng.choice(_CONTEXT),
        *(capital(text) + _mark(text) for text in told),
        rng.choice(_ENDS),
    ]
    pieces = [piece for piece in pieces if piece]
    if greeting := rng.choice(_GREETINGS):
        first = pieces[0] if pieces[0].startswith("I ") else pieces[0][:1].lower() + pieces[0][1:]
        pieces[0] = f"{greeting}, {first}"
    text = _filled(rng, " ".join(pieces))
    return text.lower() if rng.random() < 0.15 else text


def _mark(text: str) -> str:
    return "?" if _QUESTION.match(text.rpartition(", but ")[2]) else "."


def _filled(rng: Random, template: str) -> str:
    """Chooses among `(this|that)` and fills in the slots."""
    text = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), template)
    number = f"{rng.randint(100, 999)}-{rng.randint(10, 99)}"
    return (
        text.replace("{item}", rng.choice(_ITEMS))
        .replace("{month}", rng.choice(_MONTHS))
        .replace("{number}", number)
    )


TRIAGE = DemoTask(name="triage", title="text → label", metric="accuracy", draw=_draw, labels=LABELS)
