"""Records and the sentences that restate them: the skill of saying in words what a record says in
keys and values.
"""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

from edgeprefix.demo.pretraining.synthetic import names
from edgeprefix.demo.pretraining.synthetic.domains import OTHERS
from edgeprefix.demo.pretraining.synthetic.facets import Domain, Facet, Fragments
from edgeprefix.demo.pretraining.synthetic.notation import Notation, Pairs, choose_notation
from edgeprefix.demo.pretraining.synthetic.phrases import article, join, sentence, uncapital
from edgeprefix.demo.pretraining.synthetic.places import EATING, KIND_KEYS, PLACE_KIND_KEYS, PLACES
from edgeprefix.demo.pretraining.synthetic.task import Example, Task

_PLACED = (
    "In ",
    "Near",
    "Close",
    "Next",
    "Just",
    "Not far",
    "At ",
    "Located",
    "Set in",
    "Situated",
)


class Fact(NamedTuple):
    """One facet with its key and value."""

    facet: Facet
    key: str
    value: str

    @property
    def phrases(self) -> Fragments:
        """The fragments that express this fact."""
        return self.facet.phrases(self.value)


class Thing(NamedTuple):
    """A named thing of a domain with the facts known about it."""

    domain: Domain
    noun: str
    name: str
    pronoun: str
    facts: tuple[Fact, ...]


def choose_domain(rng: Random) -> Domain:
    """Return a domain; places, the nearest kin of many catalogues, come most often."""
    roll = rng.random()
    return rng.choice(EATING if roll < 0.4 else PLACES if roll < 0.55 else OTHERS)


def draw_thing(rng: Random, domain: Domain, *, least: int = 1, most: int = 6) -> Thing:
    """Draw a thing with between `least` and `most` facts, no key and no value twice."""
    facts: list[Fact] = []
    name = domain.name(rng)
    used, values = {"name", "title"}, {name}
    wanted = rng.randint(least, most)
    for facet in rng.sample(domain.facets, len(domain.facets)):
        key, value = rng.choice(facet.keys), facet.draw(rng)
        if len(facts) == wanted:
            break
        if used.isdisjoint(facet.keys) and (value not in values or value in ("yes", "no")):
            facts.append(Fact(facet, key, value))
            used.update(facet.keys)
            values.add(value)
    pronoun = rng.choice(domain.pronouns).format(n=name, he=names.pronoun(name, rng))
    return Thing(domain, rng.choice(domain.nouns), name, pronoun, tuple(facts))


def fill(template: str, value: str, subject: str) -> str:
    """Put value and subject into a fragment."""
    if "{a:v}" in template:
        template = template.replace("{a:v}", article(value))
    return template.replace("{v}", value).replace("{n}", subject)


def _elide(verbs: list[str]) -> list[str]:
    """Leave out a repeated "is" or "has": "is cheap and is near the mill" becomes "is cheap and
    near the mill".
    """
    told = verbs[:1]
    for before, verb in pairwise(verbs):
        first = verb.split()[0]
        shared = (
            first in ("is", "has")
            and before.split()[0] == first
            and verb.split()[1] not in ("been", "done", "existed")
        )
        told.append(verb.partition(" ")[2] if shared else verb)
    return told


def _predicates(rng: Random, facts: Sequence[Fact], subject: str) -> str:
    """Say the facts as predicates joined by "and"."""
    verbs = [fill(rng.choice(fact.phrases.verb), fact.value, subject) for fact in facts]
    if len(verbs) > 1 and rng.random() < 0.5:
        verbs.sort(key=lambda verb: verb.split()[0])
    if rng.random() < 0.7:
        verbs = _elide(verbs)
    return join(
        verbs,
        "and it"
        if subject == "It"
        and len(verbs) == 2
        and rng.random() < 0.1
        and verbs[1].split()[0] in ("is", "has", "costs", "serves")
        else "and",
    )


def _lower_start(subject: str, name: str) -> str:
    return subject if subject == name else uncapital(subject)


class _Writer:
    """Writes one thing as sentences; keeps count of which facts are still to be told."""

    def __init__(self, rng: Random, thing: Thing) -> None:
        self.rng = rng
        self.thing = thing
        self.left = list(thing.facts)
        rng.shuffle(self.left)

    def take(self, kind: str, most: int) -> list[Fact]:
        """Take up to `most` facts that have a fragment of this kind."""
        chosen = [fact for fact in self.left if getattr(fact.phrases, kind)][:most]
        self.left = [fact for fact in self.left if fact not in chosen]
        return chosen

    def text(self, kind: str, facts: Sequence[Fact], subject: str = "it") -> list[str]:
        """Return one fragment of this kind for each fact."""
        return [
            fill(self.rng.choice(getattr(fact.phrases, kind)), fact.value, subject)
            for fact in facts
        ]

    def has(self, kind: str) -> bool:
        """Whether a fact with a fragment of this kind is still to be told."""
        return any(getattr(fact.phrases, kind) for fact in self.left)

    def noun_phrase(self, posts: int) -> str:
        """Return "cheap pub near the mill that serves tacos"; at most two words before the noun."""
        pre = self.text("pre", self.take("pre", self.rng.choice((0, 1, 1, 2))))
        return " ".join([*pre, self.thing.noun, *self.posts(posts)])

    def posts(self, most: int) -> list[str]:
        """Return phrases that follow a noun, no two with the same first word, relative clauses
        last.
        """
        chosen: dict[str, str] = {}
        for fact in self.take("post", most):
            text = self.text("post", [fact])[0]
            if text.split()[0] in chosen or (
                text.startswith(("that", "where")) and "that" in chosen
            ):
                self.left.append(fact)
            else:
                chosen["that" if text.startswith("where") else text.split()[0]] = text
        return sorted(
            chosen.values(),
            key=lambda text: (text.startswith(("that", "where")), text.split()[0].endswith("ing")),
        )

    def opening(self) -> str:
        """Return the first sentence, which names the thing."""
        rng, name, copula = self.rng, self.thing.name, self.thing.domain.copula
        if self.thing.domain.plain:
            return self.plain_opening()
        roll = rng.random()
        front = self.text("front", self.take("front", 1)) if roll < 0.3 else []
        start = f"{front[0]}, " if front else ""
        many = len(self.left) > 2
        if roll < 0.12 and self.has("verb") and many:
            return sentence(f"{start}{name} {self.predicate(name)}")
        if roll < 0.16 and self.has("verb"):
            return sentence(f"{start}the {self.noun_phrase(0)} {name} {self.predicate(name)}")
        if roll < 0.2 and copula == "is" and start.startswith(_PLACED):
            return sentence(f"{start}there is {article(self.noun_phrase(0))} called {name}")
        if roll < 0.3:
            return sentence(
                f"{start}{name} {copula} {article(self.noun_phrase(rng.randint(0, 2)))}"
            )
        if roll < 0.42 and self.has("verb"):
            phrase = article(self.noun_phrase(rng.choice((0, 0, 1))))
            return sentence(
                f"{name}, {phrase}, {self.predicate(name)}"
                if self.has("verb")
                else f"{name} {copula} {phrase}"
            )
        if roll < 0.5 and copula == "is":
            after = self.posts(1) if rng.random() < 0.5 else []
            return sentence(
                " ".join([f"There is {article(self.noun_phrase(0))} called {name}", *after])
            )
        if roll < 0.65 and self.has("verb") and many:
            return sentence(f"{name} {self.predicate(name)}")
        if roll < 0.72 and self.has("verb"):
            return sentence(f"The {self.noun_phrase(0)} {name} {self.predicate(name)}")
        if roll < 0.75:
            return sentence(f"{name}: {article(self.noun_phrase(2))}")
        phrase = article(self.noun_phrase(rng.choice((0, 1, 1, 2, 2, 3))))
        if roll > 0.93 and self.has("verb"):
            return sentence(f"{name} {copula} {phrase} and {self.predicate(name)}")
        return sentence(f"{name} {copula} {phrase}")

    def plain_opening(self) -> str:
        """Return the first sentence about a thing whose noun is better left out."""
        name = self.thing.name
        front = self.text("front", self.take("front", 1)) if self.rng.random() < 0.3 else []
        if self.has("verb"):
            return sentence(f"{front[0] + ', ' if front else ''}{name} {self.predicate(name)}")
        if front:
            return sentence(f"{front[0]}, {name} is {article(self.thing.noun)}")
        return self.remainder(name)

    def predicate(self, subject: str) -> str:
        """Return one to three predicates joined."""
        facts = self.take("verb", self.rng.choice((1, 1, 2, 2, 3)))
        return _predicates(self.rng, facts, subject) if facts else f"is {article(self.thing.noun)}"

    def subject(self, noun_told: bool) -> str:
        """Return a way to name the thing again; if nobody has said what it is, rather by
        its noun.
        """
        thing = self.thing
        if not noun_told and not thing.domain.plain and self.rng.random() < 0.75:
            return f"The {thing.noun}"
        named = thing.name if thing.domain.plain else f"The {thing.noun}"
        return self.rng.choice((thing.pronoun, thing.pronoun, thing.pronoun, thing.name, named))

    def further(self, noun_told: bool = True) -> str:
        """Return a sentence that tells one to three of the facts left."""
        subject, name = self.subject(noun_told), self.thing.name
        if noun_told and self.rng.random() < 0.45 and self.has("full"):
            again = (
                name
                if self.thing.domain.plain
                else self.rng.choice((name, f"this {self.thing.noun}"))
            )
            return sentence(self.text("full", self.take("full", 1), again)[0])
        front = self.take("front", 1) if self.rng.random() < 0.12 and len(self.left) > 1 else []
        facts = self.take("verb", self.rng.choice((1, 2, 2, 3)))
        if facts and front:
            told = _predicates(self.rng, facts, subject)
            return sentence(f"{self.text('front', front)[0]}, {_lower_start(subject, name)} {told}")
        self.left += front
        return (
            sentence(f"{subject} {_predicates(self.rng, facts, subject)}")
            if facts
            else self.remainder(subject)
        )

    def remainder(self, subject: str) -> str:
        """Tell one fact that has no predicate, in whatever form it has."""
        fact, thing = self.left.pop(), self.thing
        if fact.phrases.full:
            return sentence(self.text("full", [fact], thing.name)[0])
        if fact.phrases.pre:
            return sentence(
                f"{subject} {thing.domain.copula} "
                f"{article(self.text('pre', [fact])[0] + ' ' + thing.noun)}"
            )
        if fact.phrases.post:
            return sentence(
                f"{subject} {thing.domain.copula} {article(thing.noun)} "
                f"{self.text('post', [fact])[0]}"
            )
        raise ValueError(f"the facet {fact.key!r} has no fragment for {fact.value!r}")


def restate(rng: Random, thing: Thing) -> str:
    """Return a fluent text of one to four sentences that tells every fact of `thing` once."""
    writer = _Writer(rng, thing)
    sentences = [writer.opening()]
    while writer.left:
        sentences.append(writer.further(thing.noun in sentences[0] or len(sentences) > 1))
    return " ".join(sentences)


def pairs_of(rng: Random, thing: Thing, keys: tuple[str, str | None]) -> Pairs:
    """Return the record of `thing` as pairs; `keys` are those of the name and, unless `None`, of
    the kind.
    """
    name_key, kind_key = keys
    rest = [(fact.key, fact.value) for fact in thing.facts]
    if kind_key:
        rest.insert(0, (kind_key, thing.noun))
    return [(name_key, thing.name), *rest]


def who_and_what(rng: Random, domain: Domain) -> tuple[str, str | None]:
    """Return the keys under which a record gives the name and, unless `None`, the kind of thing."""
    taken = {key for facet in domain.facets for key in facet.keys}
    free = [key for key in (PLACE_KIND_KEYS if domain in PLACES else KIND_KEYS) if key not in taken]
    shown = not domain.plain and (len(domain.nouns) > 1 or domain in PLACES)
    return rng.choice([key for key in domain.name_keys if key not in taken]), rng.choice(
        free
    ) if shown else None


def _record_example(
    rng: Random, domains: Sequence[Domain], notation: Notation, keys: tuple[str, str | None]
) -> Example:
    domain = rng.choice(domains)
    thing = draw_thing(rng, domain, most=rng.choice((3, 5, 7)))
    values = (thing.name, *(fact.value for fact in thing.facts if fact.value not in ("yes", "no")))
    return Example(notation(pairs_of(rng, thing, keys)), restate(rng, thing), values)


def record_task(rng: Random, *, back: bool = False) -> Task:
    """Return the task "record to text", or with `back` "text to record", for one domain and one
    notation.
    """
    domain = choose_domain(rng)
    domains = EATING if domain in EATING and rng.random() < 0.7 else (domain,)
    notation, keys = choose_notation(rng), who_and_what(rng, domain)

    def draw(rng: Random) -> Example:
        example = _record_example(rng, domains, notation, keys)
        return Example(example.target, example.source, example.copied) if back else example

    if back:
        return Task(
            draw,
            ("Write the record.", "Text to data:", "Find the facts.", "Fill in the form."),
            ("Text", "Description", "Sentence"),
            ("Record", "Data", "Facts", "Fields"),
            most=4,
        )
    return Task(
        draw,
        (
            "Write the record as text.",
            "Describe it in words.",
            "From data to text.",
            "Write a short description.",
            f"Say this in full sentences about {article(domain.nouns[0])}.",
            "Turn the data into sentences:",
            "Write a sentence from these facts.",
            "A guide entry for each record:",
            "Describe the following:",
        ),
        ("Record", "Data", "Facts", "Entry", "Input", "Information", "Details"),
        ("Text", "Description", "Sentence", "In words", "Output", "Summary"),
        most=6,
    )


def conversion_task(rng: Random) -> Task:
    """Return the task of writing a record in another notation."""
    domain = choose_domain(rng)
    first, second = choose_notation(rng, keyed=True), choose_notation(rng, keyed=True)
    keys = who_and_what(rng, domain)

    def draw(rng: Random) -> Example:
        pairs = pairs_of(rng, draw_thing(rng, domain, most=4), keys)
        return Example(first(pairs), second(pairs), tuple(value for _, value in pairs))

    return Task(
        draw,
        ("Write it in the other notation.", "Convert the record.", "Change the format:"),
        ("First", "From", "Old", "Input"),
        ("Second", "To", "New", "Output"),
        most=4,
    )


def restatement(rng: Random) -> Task:
    """Return the task of saying the same facts again in other words, or of describing several
    things in a row.
    """
    domain = choose_domain(rng)

    def draw(rng: Random) -> Example:
        thing = draw_thing(rng, domain, least=2, most=5)
        return Example(restate(rng, thing), restate(rng, thing), (thing.name,))

    return Task(
        draw,
        ("Say it in other words.", "Paraphrase.", "Write it differently."),
        ("Original", "Text", "First"),
        ("Rewritten", "In other words", "Second"),
        most=3,
    )
