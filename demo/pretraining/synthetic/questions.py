"""Questions about a record or a short text, and their answers."""

from random import Random

from edgeprefix.demo.pretraining.synthetic.notation import choose_notation
from edgeprefix.demo.pretraining.synthetic.phrases import sentence
from edgeprefix.demo.pretraining.synthetic.records import (
    Fact,
    Thing,
    choose_domain,
    draw_thing,
    pairs_of,
    restate,
    who_and_what,
)
from edgeprefix.demo.pretraining.synthetic.task import Example, Task

_UNKNOWN = ("unknown", "not given", "The text does not say.", "no answer")


def _question(rng: Random, thing: Thing, fact: Fact) -> str:
    own = fact.facet.ask
    if own and rng.random() < 0.8:
        return rng.choice(own).replace("{n}", thing.name)
    return rng.choice(
        (f"{thing.name}: {fact.key}?", f"{fact.key}?", f"What is given as {fact.key}?")
    )


def _answer(rng: Random, thing: Thing, fact: Fact, full: bool) -> str:
    verbs = fact.phrases.verb
    if full and verbs:
        told = rng.choice(verbs)
        if "{a:v}" not in told:
            return sentence(f"{thing.name} {told.replace('{v}', fact.value)}")
    return fact.value


def question_task(rng: Random) -> Task:
    """Return the task of answering a question over a record, or over a text, of one domain."""
    domain, notation = choose_domain(rng), choose_notation(rng, keyed=True)
    keys = who_and_what(rng, domain)
    over_text, full, unknown = rng.random() < 0.6, rng.random() < 0.25, rng.choice(_UNKNOWN)
    first, reply = rng.choice(
        (("Q", "A"), ("Question", "Answer"), ("question", "answer"), ("Ask", "Reply"), ("", "-"))
    )

    def draw(rng: Random) -> Example:
        thing = draw_thing(rng, domain, least=2, most=5)
        about = restate(rng, thing) if over_text else notation(pairs_of(rng, thing, keys))
        fact = rng.choice(thing.facts)
        asked, answer = _question(rng, thing, fact), _answer(rng, thing, fact, full)
        if rng.random() < 0.1:
            absent = [
                facet
                for facet in domain.facets
                if facet.ask
                and not any(set(facet.keys) & set(known.facet.keys) for known in thing.facts)
            ]
            if absent:
                asked, answer = (
                    rng.choice(rng.choice(absent).ask).replace("{n}", thing.name),
                    unknown,
                )
        question = f"{first}: {asked}" if first else asked
        return Example(f"{about}\n{question}", answer, (answer,) if answer == fact.value else ())

    return Task(
        draw,
        (
            "Answer the question.",
            "Read and answer.",
            "Questions and answers",
            "Answer from the text.",
        ),
        ("Text", "Passage", "Context", "Given", "Read"),
        (reply,),
        most=5,
    )


def dialogue_task(rng: Random) -> Task:
    """Return the task of several questions and answers over one text."""
    domain, notation = choose_domain(rng), choose_notation(rng, keyed=True)
    keys = who_and_what(rng, domain)
    first, reply = rng.choice(
        (
            ("Q: ", "A: "),
            ("Question: ", "Answer: "),
            ("- ", "  "),
            ("Visitor: ", "Guide: "),
            ("", ""),
        )
    )

    def draw(rng: Random) -> Example:
        thing = draw_thing(rng, domain, least=3, most=6)
        about = restate(rng, thing) if rng.random() < 0.6 else notation(pairs_of(rng, thing, keys))
        asked = rng.sample(thing.facts, min(len(thing.facts), rng.randint(2, 4)))
        lines = [f"{first}{_question(rng, thing, fact)}\n{reply}{fact.value}" for fact in asked]
        return Example(
            about,
            "\n".join(lines),
            tuple(fact.value for fact in asked if fact.value not in ("yes", "no")),
        )

    return Task(draw, ("Questions about a text", "Read and answer."), most=2)


def which_task(rng: Random) -> Task:
    """Return the task of finding the thing to which a value belongs, among several."""
    domain = choose_domain(rng)
    keys = who_and_what(rng, domain)[0], None
    notation, between = choose_notation(rng, keyed=True), rng.choice(("\n", "\n\n"))
    phrase = rng.choice(
        ("Which one has {k} {v}?", "{k} {v}: which one?", "{k} = {v}", "Find {k}: {v}.")
    )

    def draw(rng: Random) -> Example:
        things = [draw_thing(rng, domain, least=1, most=2) for _ in range(rng.randint(2, 4))]
        chosen = rng.choice(things)
        fact = chosen.facts[0]
        listed = between.join(notation(pairs_of(rng, thing, keys)) for thing in things)
        if sum(fact.value in (f.value for f in thing.facts) for thing in things) > 1:
            return draw(rng)
        return Example(
            f"{listed}\n{phrase.format(k=fact.key, v=fact.value)}", chosen.name, (chosen.name,)
        )

    return Task(
        draw,
        ("Find the entry.", "Look it up."),
        ("List", "Data", "Entries"),
        ("Answer", "Name"),
        most=3,
    )
