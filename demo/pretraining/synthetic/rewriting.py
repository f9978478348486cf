"""Rewriting pairs: tense, person, voice, negation, politeness, formality, notes and full
sentences.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from edgeprefix.demo.pretraining.synthetic import names, words
from edgeprefix.demo.pretraining.synthetic.phrases import (
    article,
    capital,
    number_words,
    sentence,
    uncapital,
)
from edgeprefix.demo.pretraining.synthetic.task import Example, Materials, Task


class Verb(NamedTuple):
    """The forms of a verb and things that one does it to."""

    base: str
    third: str
    past: str
    participle: str
    ing: str
    objects: tuple[str, ...]


def _verb(line: str) -> Verb:
    forms, _, objects = line.partition(": ")
    base, third, past, participle, ing = forms.split("/")
    return Verb(base, third, past, participle, ing, tuple(objects.split(", ")))


VERBS = tuple(
    _verb(line)
    for line in """
send/sends/sent/sent/sending: the report, the parcel, the letter, the invoice, the photos, the form, two tickets, the list
write/writes/wrote/written/writing: the letter, a short note, the report, the song, the article, the speech
open/opens/opened/opened/opening: the door, the window, the shop, the box, the file, the gate, the meeting
close/closes/closed/closed/closing: the door, the window, the account, the shop, the case, the book
clean/cleans/cleaned/cleaned/cleaning: the kitchen, the room, the car, the table, the stairs, the windows
fix/fixes/fixed/fixed/fixing: the printer, the lamp, the roof, the car, the bicycle, the mistake, the heater
check/checks/checked/checked/checking: the numbers, the order, the address, the bill, the list, the plan
buy/buys/bought/bought/buying: a new lamp, the tickets, some bread, a present, the house, a blue coat, four chairs
sell/sells/sold/sold/selling: the car, the old house, flowers, the tickets, the paintings
bring/brings/brought/brought/bringing: the keys, a chair, the cake, the documents, some water, an umbrella
find/finds/found/found/finding: the key, the answer, a small coin, the road, a good seat, the mistake
paint/paints/painted/painted/painting: the wall, the fence, the ship, a picture, the front door
cook/cooks/cooked/cooked/cooking: the soup, dinner, some rice, the fish, a large meal
read/reads/read/read/reading: the book, the paper, the message, the contract, the story
carry/carries/carried/carried/carrying: the box, the bags, the child, the chairs, the ladder
move/moves/moved/moved/moving: the meeting, the table, the boxes, the appointment, the car
cancel/cancels/cancelled/cancelled/cancelling: the order, the trip, the meeting, the booking, the party, the contract
book/books/booked/booked/booking: a table, a room, the flight, two seats, the hotel
pay/pays/paid/paid/paying: the bill, the rent, the fine, the invoice, the fee
change/changes/changed/changed/changing: the date, the password, the plan, the colour, the address
finish/finishes/finished/finished/finishing: the work, the report, the book, the wall, the drawing
print/prints/printed/printed/printing: the form, the tickets, the map, the letter, ten copies
explain/explains/explained/explained/explaining: the rules, the problem, the plan, the delay, the bill
return/returns/returned/returned/returning: the book, the shoes, the keys, the parcel, the jacket
call/calls/called/called/calling: the doctor, the office, the driver, the manager, the customer
help/helps/helped/helped/helping: the child, the new colleague, the old man, the team
visit/visits/visited/visited/visiting: the museum, the doctor, the old town, the office, a friend
sign/signs/signed/signed/signing: the contract, the form, the letter, the card
plan/plans/planned/planned/planning: the trip, the party, the garden, the meeting
answer/answers/answered/answered/answering: the question, the letter, the phone, the email
update/updates/updated/updated/updating: the website, the list, the calendar, the file, the price
wash/washes/washed/washed/washing: the dishes, the car, the shirts, the windows
build/builds/built/built/building: a wall, the bridge, a small house, the boat, a table
catch/catches/caught/caught/catching: the train, a big fish, the ball, the thief
break/breaks/broke/broken/breaking: the window, the cup, the rule, the record
keep/keeps/kept/kept/keeping: the receipt, the secret, the change, the old chair
teach/teaches/taught/taught/teaching: the class, the children, a course, the new song
choose/chooses/chose/chosen/choosing: the colour, a name, the winner, a seat
""".strip().splitlines()
)
_TIMES = (
    "today",
    "tomorrow",
    "by noon",
    "this week",
    "before lunch",
    "as well",
    "again",
    "at once",
    "on time",
)
_PAST_TIMES = (
    "yesterday",
    "last week",
    "on {d}",
    "in the morning",
    "at {t}",
    "last year",
    "",
    "",
    "an hour ago",
)


def _object(rng: Random, verb: Verb) -> str:
    """Return an object of `verb`; often one with a made-up name in it."""
    thing = rng.choice(verb.objects)
    if thing.startswith("the ") and not thing.endswith("s") and rng.random() < 0.25:
        return f"{thing} {rng.choice(('for', 'from', 'of'))} {names.person(rng)}"
    return thing


def _deadline(rng: Random) -> str:
    return rng.choice(
        (
            *_TIMES,
            f"by {rng.choice(words.DAYS)}",
            f"before {names.clock(rng)}",
            f"on {rng.choice(words.DAYS)}",
            f"by {names.date(rng)}",
            "",
            "",
            f"for {names.first_name(rng)}",
            f"with {names.first_name(rng)}",
        )
    )


def _phrase(verb: str, thing: str, rest: str) -> str:
    return f"{verb} {thing} {rest}".strip()


class Clause(NamedTuple):
    """One statement from which every other form is made."""

    subject: str
    verb: Verb
    thing: str
    when: str


def _clause(rng: Random) -> Clause:
    verb = rng.choice(VERBS)
    subject = rng.choice(
        (
            names.first_name(rng),
            names.person(rng),
            "the " + rng.choice(words.JOBS),
            "she",
            "he",
            "my brother",
            "our neighbour",
        )
    )
    when = rng.choice(_PAST_TIMES).format(d=rng.choice(words.DAYS), t=names.clock(rng))
    return Clause(subject, verb, _object(rng, verb), when)


def _is_plural(thing: str) -> bool:
    head = thing.partition(" for ")[0].partition(" from ")[0].partition(" of ")[0]
    return (head.endswith("s") and not head.endswith("ss")) or head == "the children"


def _passive(clause: Clause) -> str:
    be = "were" if _is_plural(clause.thing) else "was"
    agent = {"she": "her", "he": "him"}.get(clause.subject, clause.subject)
    return _phrase(f"{clause.thing} {be} {clause.verb.participle} by {agent}", clause.when, "")


Form = Callable[[Clause], str]
_FORMS: dict[str, Form] = {
    "past": lambda c: _phrase(f"{c.subject} {c.verb.past}", c.thing, c.when),
    "present": lambda c: _phrase(f"{c.subject} {c.verb.third}", c.thing, "every day"),
    "future": lambda c: _phrase(f"{c.subject} will {c.verb.base}", c.thing, "tomorrow"),
    "perfect": lambda c: _phrase(f"{c.subject} has {c.verb.participle}", c.thing, ""),
    "negative": lambda c: _phrase(f"{c.subject} did not {c.verb.base}", c.thing, c.when),
    "passive": _passive,
    "first person": lambda c: _phrase(f"I {c.verb.past}", c.thing, c.when),
    "plural": lambda c: _phrase(f"we {c.verb.past}", c.thing, c.when),
    "continuous": lambda c: _phrase(f"{c.subject} is {c.verb.ing}", c.thing, "now"),
    "must": lambda c: _phrase(f"{c.subject} must {c.verb.base}", c.thing, "soon"),
    "wish": lambda c: _phrase(f"{c.subject} wants to {c.verb.base}", c.thing, ""),
    "reported": lambda c: _phrase(f"they say that {c.subject} {c.verb.past}", c.thing, c.when),
}


def grammar_task(rng: Random, materials: Materials) -> Task:
    """Return the task of changing one grammatical form into another."""
    first, second = rng.sample(list(_FORMS), 2)
    if rng.random() < 0.5:
        first = "past" if second != "past" else "passive"
    question = rng.random() < 0.15

    def draw(rng: Random) -> Example:
        clause = _clause(rng)
        target = sentence(_FORMS[second](clause))
        if question:
            target = sentence(
                _phrase(f"did {clause.subject} {clause.verb.base}", clause.thing, clause.when), "?"
            )
        return Example(sentence(_FORMS[first](clause)), target, (clause.thing,))

    wanted = "as a question" if question else f"in the {second} form"
    return Task(
        draw,
        (
            f"Write it {wanted}.",
            f"{capital(first)} to {'question' if question else second}",
            "Rewrite the sentence.",
        ),
        ("Original", "Sentence", "Before", first),
        ("Rewritten", "New", "After", "question" if question else second),
    )


_BLUNT = (
    "{vp}.",
    "{vp}!",
    "{vp}.",
    "{vp} now.",
    "I want you to {vp}.",
    "You have to {vp}.",
    "Just {vp}.",
    "You must {vp}.",
    "I need you to {vp}.",
    "You need to {vp}.",
    "Don't forget to {vp}.",
    "{vp}, will you?",
    "Go and {vp}.",
    "Hey, {vp}.",
    "I told you to {vp}.",
    "When will you finally {vp}?",
)
_POLITE = (
    "Could you please {vp}?",
    "Would you mind {ing}?",
    "I would be grateful if you could {vp}.",
    "Could you {vp}, please?",
    "Please {vp} when you have a moment.",
    "Would you please {vp}?",
    "Would you be so kind as to {vp}?",
    "I would appreciate it if you could {vp}.",
    "May I ask you to {vp}?",
    "Would it be possible for you to {vp}?",
    "I was wondering whether you could {vp}.",
    "It would be very kind of you to {vp}.",
    "If possible, please {vp}.",
    "When you have time, could you please {vp}?",
    "Might I ask you to {vp}?",
    "I would like to thank you in advance for {ing}.",
)


def _pairs(block: str) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Read pairs of lines, on each the variants that a bar parts."""
    lines = [tuple(line.split("|")) for line in block.strip().splitlines()]
    return tuple(zip(lines[::2], lines[1::2], strict=True))


# Blunt ways to say something, and on the next line polite ones.
_TALK = _pairs("""
Where is my {i}?|My {i} isn't here. Where is it?
Could you please tell me where my {i} is?|May I ask where my {i} is at the moment?
Your {i} is broken.|The {i} you sent is broken.
I am afraid the {i} is broken.|Unfortunately, the {i} arrived broken.
Give me my money back for the {i}.|I want a refund for the {i}.
Could I please have a refund for the {i}?|I would like to ask for a refund for the {i}.
I don't like the {i}.|The {i} is ugly.
I am sorry, but the {i} is not quite to my taste.|To be honest, I am not entirely happy with the {i}.
The {i} is too expensive.|You ask too much for the {i}.
I am afraid the {i} is a little too expensive for me.|Would there be any chance of a lower price for the {i}?
I can't come on {d}.|No, not on {d}.
Unfortunately, I will not be able to come on {d}.|I am sorry, but I cannot make it on {d}.
You're late, {n}.|{n}, you are late again.
We were expecting you a little earlier, {n}.|{n}, could you please try to be on time?
Call me back at {t}.|Ring me at {t}.
Could you please call me back at {t}?|I would be grateful for a call at {t}.
I don't know.|No idea.
I am afraid I do not know.|I am sorry, but I cannot say.
Be quiet.|Shut up.|Stop talking.
Could you please be a little quieter?|Would you mind keeping your voice down?
Hurry up.|You are too slow.
Could you please be a little quicker?|I would be grateful if we could speed this up.
You are wrong about the {i}.|That's wrong, the {i} isn't ready.
I am afraid there may be a mistake about the {i}.|I think we may see the {i} differently.
What's your name?|Who are you?
May I ask your name, please?|Could you please tell me your name?
Wait here.|Stay there.
Would you mind waiting here for a moment?|Please wait here for a moment.
Meet me at {p} at {t}.|Be at {p} at {t}.
Would you like to meet at {p} at {t}?|Could we please meet at {p} at {t}?
I won't pay for the {i}.|I'm not paying for that {i}.
I am afraid I cannot agree to pay for the {i}.|Regrettably, I am unable to pay for the {i}.
The {i} took too long.|I waited far too long for the {i}.
I had hoped to receive the {i} a little sooner.|Unfortunately, the {i} took longer than expected.
The food at {p} was bad.|{p} serves awful food.
I am afraid the food at {p} did not quite meet our hopes.|The food at {p} could have been a little better.
I want to talk to {n}.|Get me {n}.
Could I please speak to {n}?|Would it be possible to speak to {n}?
{n}, your report is bad.|This report is poor work, {n}.
{n}, I think the report could still be improved.|Thank you for the report, {n}. There are a few things we could improve.
Give me a table for {k}.|I want a table for {k}.
Could we please have a table for {k}?|We would like a table for {k}, please.
I want the {i} for {m}.|Give me the {i} for {m}.
Would you accept {m} for the {i}?|Could I perhaps have the {i} for {m}?
Turn the music down.|Your music is too loud.
Would you mind turning the music down a little?|Could you please turn the music down?
You sent the wrong {i}.|This isn't the {i} I ordered.
It seems that I have received the wrong {i}.|I believe there was a mix-up with the {i}.
No, I don't want the {i}.|I don't need your {i}.
Thank you, but I do not need the {i}.|That is very kind, but I would rather not take the {i}.
Move your {i}.|Your {i} is in my way.
Excuse me, could you please move your {i}?|Would you mind moving your {i} a little?
I didn't understand, {n}.|What do you mean, {n}?
I am sorry, {n}, could you please explain that again?|Could you please say that once more, {n}?
Why is order {c} not here yet?|Order {c} is late.
Could you please check what has happened to order {c}?|I would be grateful for some news about order {c}.
Cancel order {c}.|I don't want order {c} any more.
I would like to cancel order {c}, please.|Could you please cancel order {c} for me?
{n} never answers emails.|{n}, answer your emails.
{n}, I would be grateful for a reply to my email.|I have not yet had a reply from {n}.
""")


def _slots(rng: Random) -> dict[str, str]:
    item = rng.choice(words.PRODUCTS)
    return {
        "i": item,
        "ai": article(item),
        "d": rng.choice((rng.choice(words.DAYS), names.date(rng))),
        "t": names.clock(rng),
        "n": names.person(rng) if rng.random() < 0.4 else names.first_name(rng),
        "p": names.place(rng),
        "k": number_words(rng.randint(2, 12)),
        "m": names.amount(rng),
        "c": names.code(rng),
    }


def _request(rng: Random, blunt: Sequence[str], polite: Sequence[str]) -> Example:
    verb = rng.choice(VERBS)
    thing, rest = _object(rng, verb), _deadline(rng)
    phrase, ing = _phrase(verb.base, thing, rest), _phrase(verb.ing, thing, rest)
    source, target = rng.choice(blunt), rng.choice(polite)
    if rest and source.endswith("now."):
        source = blunt[0] if "now" not in blunt[0] else "{vp}."
    return Example(
        sentence(source.format(vp=phrase)),
        sentence(target.format(vp=phrase, ing=ing)),
        (thing, rest),
    )


def _remark(rng: Random) -> Example:
    blunt, polite = rng.choice(_TALK)
    slots = _slots(rng)
    target = rng.choice(polite).format(**slots)
    return Example(
        sentence(rng.choice(blunt).format(**slots)),
        sentence(target),
        tuple(value for value in slots.values() if value in target),
    )


def politeness_task(rng: Random, materials: Materials) -> Task:
    """Return the task of saying something blunt politely, or the other way round."""
    back, remarks = rng.random() < 0.15, rng.random()
    blunt, polite = (
        rng.sample(frames, rng.choice((1, 3, len(frames)))) for frames in (_BLUNT, _POLITE)
    )

    def draw(rng: Random) -> Example:
        item = _remark(rng) if rng.random() < remarks else _request(rng, blunt, polite)
        return Example(item.target, item.source, item.copied) if back else item

    if back:
        return Task(
            draw,
            ("Say it bluntly.", "Short and direct:", "From polite to direct"),
            ("Polite", "Original"),
            ("Blunt", "Direct", "Rewritten"),
        )
    return Task(
        draw,
        (
            "Say it politely.",
            "Make it polite.",
            "Rewrite in a friendly way.",
            "A kinder way to say it:",
            "From direct to courteous",
            "Rewrite the message so that it sounds polite.",
        ),
        ("Blunt", "Original", "Message", "Direct", "Before", "Draft", "Rude"),
        ("Polite", "Rewritten", "Kinder", "Friendly", "After", "Better"),
    )


_FORMAL = tuple(
    tuple(line.split(" => "))
    for line in """
Hi {n}, thanks for your mail. => Dear {n}, thank you for your message.
I can't come on {d}. => I am unable to attend on {d}.
We got your letter on {d}. => We received your letter on {d}.
The {i} doesn't work. => The {i} does not function.
Let me know if you've any questions. => Please inform me if you have any questions.
I need to buy {ai} for {m}. => I wish to purchase {ai} for {m}.
Kids aren't allowed at {p}. => Children are not permitted at {p}.
We're gonna meet at {t}. => We are going to meet at {t}.
It's about order {c}. => I am writing with regard to order {c}.
Sorry for the mess at {p}. => We apologise for the inconvenience at {p}.
{n}'s asking for more money. => {n} is requesting additional funds.
They've put off the meeting till {d}. => They have postponed the meeting until {d}.
Tell {n} the {i} is here. => Please inform {n} that the {i} has arrived.
See you at {t}! => I look forward to meeting you at {t}.
We'll try to find out what went wrong with order {c}. => We will attempt to establish what happened to order {c}.
You don't have to pay {m} now. => You are not required to pay {m} at present.
The {i}'s not for sale. => The {i} is not available for purchase.
I've sent the {i} back. => I have returned the {i}.
{p} is shut on {d}. => {p} is closed on {d}.
{n} said yes. => {n} gave consent.
We can help you with the {i}. => We are able to assist you with the {i}.
Bye, {n} => Yours sincerely, {n}
Get in touch with {n} first. => Please contact {n} in the first instance.
{n} has to show up by {t}. => {n} is required to appear by {t}.
I'd like to know how much the {i} costs. => I would like to enquire about the price of the {i}.
""".strip().splitlines()
)
_NOTES = tuple(
    tuple(line.split(" => "))
    for line in """
meeting {d} {t} {p} => The meeting is on {d} at {t} at {p}.
{n} called, wants {i} => {n} called and wants the {i}.
{i} sold, {m} => The {i} was sold for {m}.
table {k} people {t} name {n} => A table for {k} people is booked for {t} under the name of {n}.
train late, arrive {t} => The train is late, so I will arrive at {t}.
order {c} paid {d} => Order {c} was paid on {d}.
buy {i}, max {m} => Please buy {ai} for no more than {m}.
{n} ill, back {d} => {n} is ill and will be back on {d}.
dinner {p} {t} with {n} => We are having dinner at {p} at {t} with {n}.
{i} missing, ask {n} => The {i} is missing, so please ask {n}.
closed {d}, open again {t} => We are closed on {d} and open again at {t}.
{n} moved to {w} => {n} has moved to {w}.
flight {c} from {w} lands {t} => Flight {c} from {w} lands at {t}.
rent {m} due {d} => The rent of {m} is due on {d}.
{n}: wrong {i}, refund {m} => {n} received the wrong {i} and gets a refund of {m}.
""".strip().splitlines()
)


def _table_task(
    rng: Random, table: Sequence[tuple[str, ...]], instructions: Sequence[str], both: bool
) -> Task:
    back = both and rng.random() < 0.4

    def draw(rng: Random) -> Example:
        first, second = rng.choice(table)
        slots = _slots(rng) | {"w": names.town(rng)}
        slots["d"] = rng.choice(words.DAYS)
        first, second = first.format(**slots), second.format(**slots)
        used = tuple(value for value in slots.values() if value in first and value in second)
        return Example(second, first, used) if back else Example(first, second, used)

    if back:
        return Task(
            draw,
            ("Make it shorter and simpler.", "Say it in everyday words."),
            ("Original", "Long"),
            ("Short", "Rewritten"),
        )
    return Task(
        draw,
        instructions,
        ("Original", "Draft", "Note", "Before"),
        ("Rewritten", "Full", "After", "Text"),
    )


def formality_task(rng: Random, materials: Materials) -> Task:
    """Return the task of making everyday words formal, or formal words plain."""
    return _table_task(
        rng, _FORMAL, ("Make it formal.", "Write it as in a business letter.", "Formal style"), True
    )


def notes_task(rng: Random, materials: Materials) -> Task:
    """Return the task of making a full sentence of a note, or a note of a sentence."""
    return _table_task(
        rng,
        _NOTES,
        ("Write it as a full sentence.", "From note to sentence", "Expand the note."),
        True,
    )


_CONTRACTIONS = (
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("did not", "didn't"),
    ("cannot", "can't"),
    ("will not", "won't"),
    ("I am", "I'm"),
    ("it is", "it's"),
    ("was not", "wasn't"),
    ("is not", "isn't"),
    ("I will", "I'll"),
    ("they are", "they're"),
    ("have not", "haven't"),
    ("would not", "wouldn't"),
    ("could not", "couldn't"),
)


def contraction_task(rng: Random, materials: Materials) -> Task:
    """Return the task of writing contractions out, or of contracting."""
    back = rng.random() < 0.5

    def draw(rng: Random) -> Example:
        long, short = rng.choice(_CONTRACTIONS)
        clause = rng.choice(VERBS)
        if long in ("I am", "it is", "they are"):
            rest = rng.choice(
                (
                    "late",
                    "tired",
                    "at home",
                    f"in {names.town(rng)}",
                    "ready",
                    f"with {names.first_name(rng)}",
                )
            )
        elif long in ("was not", "is not"):
            long, short, rest = f"{names.first_name(rng)} {long}", "", f"in {names.town(rng)}"
            short = long.replace("was not", "wasn't").replace("is not", "isn't")
        else:
            who = "" if long.startswith("I ") else "she " if long.startswith("does") else "they "
            long, short = f"{who}{long}", f"{who}{short}"
            rest = _phrase(
                clause.participle if "have" in long else clause.base, _object(rng, clause), ""
            )
        first, second = sentence(f"{short} {rest}"), sentence(f"{long} {rest}")
        return Example(second, first, (rest,)) if back else Example(first, second, (rest,))

    return Task(
        draw,
        ("Use short forms." if back else "Write out the short forms.",),
        ("Original", "Before"),
        ("Rewritten", "After"),
    )


def lower_task(rng: Random, materials: Materials) -> Task:
    """Return the task of correcting text without capitals and full stops, or of writing text so."""

    def draw(rng: Random) -> Example:
        text = (
            rng.choice(materials.sentences)
            if rng.random() < 0.4
            else sentence(_FORMS["past"](_clause(rng)))
        )
        return Example(uncapital(text).lower().rstrip("."), text, (text,))

    return Task(
        draw,
        ("Correct the text.", "Add capitals and full stops.", "Tidy up the message."),
        ("Draft", "Raw", "Original"),
        ("Corrected", "Clean", "Rewritten"),
    )


REWRITING = (
    grammar_task,
    grammar_task,
    politeness_task,
    politeness_task,
    politeness_task,
    politeness_task,
    formality_task,
    notes_task,
    contraction_task,
    lower_task,
)
