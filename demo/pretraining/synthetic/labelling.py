"""Texts with a label: customer messages by department, feeling, topic, urgency, kind of sentence,
kind of thing.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from edgeprefix.demo.pretraining.synthetic import names, words
from edgeprefix.demo.pretraining.synthetic.phrases import article, capital, sentence, uncapital
from edgeprefix.demo.pretraining.synthetic.rewriting import VERBS
from edgeprefix.demo.pretraining.synthetic.task import Example, Materials, Task


class Label(NamedTuple):
    """A class: the words that may name it and the texts that belong to it, with slots."""

    titles: tuple[str, ...]
    texts: tuple[str, ...]


def _labels(block: str) -> tuple[Label, ...]:
    """Read labels from text: a line of names parted by bars, then one template a line; an empty
    line ends a label.
    """
    parts = (part.splitlines() for part in block.strip().split("\n\n"))
    return tuple(Label(tuple(lines[0].split("|")), tuple(lines[1:])) for lines in parts)


DEPARTMENTS = _labels("""
billing|payments|invoices|accounts
I was charged {m} twice for order {c}.
There is a mistake on my last bill, it says {m}.
Why did you take {m} from my card on {d}?
Please send me an invoice for the {i}.
The amount on invoice {c} is wrong.
Can I pay the {m} in two parts?
My payment for the {i} did not go through.
You charged me {m} although I cancelled.
How can I change the card that I pay with?
I need a receipt for the {i} I paid for on {d}.

delivery|shipping|transport|parcels
My parcel {c} has not arrived yet.
Where is the {i} that I ordered on {d}?
The driver left my {i} in the rain.
Can you deliver the {i} to {w} instead?
The tracking for {c} has not moved since {d}.
When will the {i} be here?
The package came two weeks late.
Do you ship to {w}?
Nobody rang the bell, but the card says I was out.
How long does shipping to {w} take?

returns|refunds|exchanges
I want to send the {i} back.
The {i} is too small, can I exchange it?
How do I return {ai}?
I sent the {i} back on {d} and still have no refund.
Can I have my money back for the {i}?
The {i} is the wrong colour, I would like another one.
Which address do I use to return the {i}?
I changed my mind about the {i} and want to give it back.
Is it still possible to exchange the {i} from order {c}?

technical support|support|technical|IT|repairs
My {i} does not switch on any more.
The app closes every time I open it.
The screen of the {i} is black.
I cannot connect the {i} to the internet.
The website shows an error when I click on the button.
After the update my {i} makes a strange noise.
The {i} stopped working after one day.
How do I set up the new {i}?
The software says error {c} all the time.
The battery of my {i} is empty after an hour.

account|login|customer account|profile
I forgot my password and cannot log in.
How can I change my email address?
Please delete my account.
I have moved to {w}, please change my address.
Somebody else has used my account.
My user name {n} is not accepted.
I did not get the email with the code.
Can I have two accounts with one email address?
My new last name is {s}, how do I change it?

sales|orders|shop
How much does the {i} cost?
Do you have the {i} in {o}?
I would like to order {ai} for my firm.
Is there a discount if I buy three of them?
Which {i} do you recommend for beginners?
Will the {i} be in stock again soon?
Can you send me your price list?
I am interested in the {i} for {m}, is it still available?
What is the difference between the {b} and the {b2}?

complaints|feedback|complaint
Your staff in {w} were very rude to me.
I am really angry about how I was treated on {d}.
This is the third time that I write to you and nobody answers.
{n} at the counter shouted at me.
I have never had such bad service.
I waited an hour on the phone and then the line went dead.
I expect an apology from {n}.
The shop in {w} was dirty and the people were unfriendly.

human resources|jobs|careers|personnel
I would like to apply for the job as {j}.
Do you have any openings in {w}?
I sent you my CV on {d} and wonder if you received it.
Is the position as {j} still open?
Can I do an internship with you in the summer?
Who can I talk to about my contract?
How many days of holiday do your employees have?

press|media|public relations
I am a journalist from {w} and would like to interview {n}.
May we use your logo in our magazine?
Could you send us a photo of {n} for our article?
Our newspaper writes about your firm, whom can we ask?
I am making a film about the {i} and need a statement.

bookings|reservations|reservation desk
I would like a table for {k} on {d}.
Can I change my booking from {d} to {d2}?
Do you have a free room for two nights?
Please cancel the table in the name of {s}.
Is there still space for {k} people at {t}?
We will be late, please keep our table until {t}.
I booked a room under {s} but got no answer.

security|fraud|fraud team
I did not make the payment of {m} on {d}.
Somebody stole my bag with the card in it.
I got a strange message that asks for my password.
A person called {n} says he works for you and wants my code.
I have lost my card, please block it.
There are three payments to {w} that I do not know.

insurance|claims
I had an accident with my car on {d}.
Water from the roof has damaged my {i}.
My {i} was stolen in {w}, am I covered?
How do I report the damage to the {i}?
What does the policy {c} cover?
I need the form for a claim.
""")
BANKING = _labels("""
card|cards
My new card has not come yet.
The machine kept my card.
How do I activate my card?
When does my card run out?
I want a second card for {n}.

transfer|transfers
I sent {m} to {n} but it has not arrived.
How long does a transfer to {u} take?
Can I stop a transfer of {m}?
I sent money to the wrong account.
Please send {m} to {n}.

exchange rate|currency
What is the rate for dollars today?
The rate you used for my payment in {u} is wrong.
Can I hold euros in my account?

cash|cash machine
I took out {m} but the machine gave me less.
Where is the next cash machine in {w}?
Is there a fee for taking out cash in {u}?

balance|account balance
How much money do I have?
My balance is lower than it should be by {m}.
Show me what I spent in {mo}.

loan|loans|mortgage
Can I borrow {m}?
What would a loan of {m} cost me each month?
I want to pay back my loan early.

fees|charges
Why is there a fee of {m} on my statement?
What do you charge for a new card?
Is the account free?
""")
TRAVEL = _labels("""
flights|flight|air travel
When does the plane to {w} leave?
Is flight {c} on time?
I need two seats to {w} on {d}.
Can I take {ai} on board?

hotels|hotel|rooms
Find me a cheap room in {w}.
Does {p} have a pool?
I need a bed for {k} nights near {w}.

car hire|cars
I want to rent a van in {w} from {d} to {d2}.
Where do I bring the car back?
Is a second driver included?

weather|forecast
Will it rain in {w} tomorrow?
How cold is it in {w} at night?
Do I need an umbrella on {d}?

food|eating out|restaurants
Where can I eat {f} food in {w}?
Book a table at {p} for {k}.
Is {p} any good?

visa|documents
Do I need a visa for {u}?
My passport runs out in {mo}, can I still travel to {u}?
Where do I get a visa for {u}?

luggage|baggage
My suitcase did not arrive in {w}.
How many bags can I take?
My bag weighs 25 kg, is that too much?

directions|way|routes
How do I get from {w} to {w2}?
Which bus goes to {r}?
How far is it to {w}?
""")
ASSISTANT = _labels("""
calendar|appointments
Put a meeting with {n} on {d} in my calendar.
What do I have to do on {d}?
Move my appointment to {t}.

alarm|alarms|clock
Wake me at {t}.
Set an alarm for {t}.
What time is it in {w}?

music|songs
Play something by {n}.
Turn the music up.
What is this song called?

shopping list|shopping
Add {g} to my shopping list.
What is on my list?
Take {g} off the list.

recipes|cooking|kitchen
How long does rice have to cook?
What can I make with {g} and {g2}?
Find a recipe for {e}.

messages|phone|calls
Call {n}.
Text {n} that I am late.
Read me my last message.

lights|home|smart home
Switch the lamp in the kitchen off.
Make the bedroom warmer.
Is the front door locked?

traffic|roads
How bad is the traffic to {w}?
Is there a jam on the way to {r}?
How long will the drive to {w} take?

translation|languages
How do you say thank you in {l}?
Translate good morning into {l}.
What is {g} in {l}?

small talk|chat
How are you today?
Tell me a joke.
Do you have a pet?
""")
FEELING = _labels("""
positive|good|happy|+|pleased
I love my new {i}.
The food at {p} was wonderful.
{n} was very kind and helped us a lot.
What a great {i}, worth every penny.
We had a lovely evening at {p}.
The best {i} that I have ever owned.
The trip to {w} was perfect from start to end.
I am very happy with the service.
Fast, friendly and cheap: I will come back.
The rooms were clean and the staff were friendly.

negative|bad|unhappy|-|displeased
The {i} broke after two days.
The food at {p} was cold and the waiter was rude.
I am very disappointed by the {i}.
What a waste of money.
{n} never answered my letters.
The worst evening that we have had for years.
The room smelled and the bed was hard.
I would not buy the {i} again.
The trip to {w} was a disaster.
Slow, dirty and much too expensive.

neutral|mixed|0|neither
The {i} is {o} and costs {m}.
{p} is in {w}.
We arrived at {t} and left in the evening.
The {i} is neither good nor bad.
{n} ordered {ai} on {d}.
The shop opens at {t}.
""")
URGENCY = _labels("""
urgent|high|now|critical
The kitchen is on fire, send help!
Our whole office is without power and customers are waiting.
Water is coming through the roof right now.
I need the papers in ten minutes or we lose the contract.
{n} is hurt and needs a doctor at once.
All our systems are down.

normal|medium|this week
Please send me the {i} by {d}.
Could you look at invoice {c} this week?
My {i} makes a noise from time to time.
I would like an answer by {d}.
The printer on the second floor needs paper.

low|can wait|later
There is a small spelling mistake on your website.
No hurry, but the {i} could use some paint one day.
Whenever you have time, please tell me about the {i}.
It would be nice to have {ao} one in the future.
Just an idea for next year: {ai} for every room.
""")
KINDS = _labels("""
question|asking|?
Where do you live?
Have you seen my {i}?
When does the train to {w} leave?
Who is {n}?
How much is the {i}?
Is {w} far from here?

command|order|instruction|!
Close the door.
Bring me the {i}.
Go to {w} at once.
Do not touch the {i}.
Wait for {n}.
Turn left at {r}.

statement|telling|fact|.
The {i} is {o}.
{n} lives in {w}.
The train leaves at {t}.
We sold the {i} for {m}.
It was cold in {w}.
{p} is closed on {d}.

wish|hope
I wish I had {ai}.
I hope that {n} comes on {d}.
If only it were {mo}.
May you be happy in {w}.

thanks|thank you
Thank you for the {i}.
Many thanks to {n} for the help.
We are grateful for your letter of {d}.

greeting|hello
Good morning, {n}.
Hello {n}, how are you?
Welcome to {w}!
""")
THINGS = tuple(
    Label(titles, tuple(options))
    for titles, options in (
        (("fruit",), words.FRUITS),
        (("vegetable",), words.VEGETABLES),
        (("tool",), words.TOOLS),
        (("animal",), words.ANIMALS),
        (("instrument", "music"), words.INSTRUMENTS),
        (("clothes", "clothing"), words.CLOTHES),
        (("vehicle", "transport"), words.VEHICLES),
        (("furniture",), words.FURNITURE),
        (("body part", "body"), words.BODY),
        (("country",), words.COUNTRIES),
        (("job", "profession"), words.JOBS),
        (("colour", "color"), words.COLOURS),
        (("month",), words.MONTHS),
        (("day",), words.DAYS),
        (("sport",), words.SPORTS),
        (("material",), words.MATERIALS),
        (("language",), words.LANGUAGES),
        (("weather",), words.WEATHER),
    )
)
NAMES = tuple(
    Label(titles, (slot,))
    for titles, slot in (
        (("person", "name"), "{n}"),
        (("town", "place"), "{w}"),
        (("money", "price", "amount"), "{m}"),
        (("time", "clock"), "{t}"),
        (("date", "day"), "{d}"),
        (("code", "number"), "{c}"),
        (("street", "address"), "{r}"),
        (("restaurant", "business"), "{p}"),
        (("product", "item"), "{b}"),
        (("title", "book"), "{ti}"),
    )
)
_OPENERS = (
    "",
    "",
    "",
    "",
    "",
    "Hi, ",
    "Hello, ",
    "Good morning. ",
    "Hi there. ",
    "Dear team, ",
    "Hello {n}, ",
    "Excuse me, ",
    "Sorry, ",
)
_CLOSERS = (
    "",
    "",
    "",
    "",
    "",
    "",
    " Thanks.",
    " Please help.",
    " Thank you.",
    " Can you help me?",
    " Regards, {n}",
    " What can I do?",
    " Please answer soon.",
    " Many thanks, {n}",
    " It is urgent.",
)


def _slots(rng: Random) -> dict[str, str]:
    item, colour = rng.choice(words.PRODUCTS), rng.choice(words.COLOURS)
    return {
        "i": item,
        "ai": article(item),
        "o": colour,
        "ao": article(colour),
        "m": names.amount(rng),
        "c": names.code(rng),
        "d": rng.choice((rng.choice(words.DAYS), names.date(rng))),
        "d2": rng.choice(words.DAYS),
        "w": names.town(rng),
        "w2": names.town(rng),
        "n": rng.choice((names.person, names.first_name))(rng),
        "s": names.surname(rng),
        "b": names.brand(rng),
        "b2": names.brand(rng),
        "j": article(rng.choice(words.JOBS)),
        "k": str(rng.randint(2, 12)),
        "t": names.clock(rng),
        "u": rng.choice(words.COUNTRIES),
        "mo": rng.choice(words.MONTHS),
        "p": names.place(rng),
        "f": rng.choice(words.FOODS[:20]),
        "r": names.street(rng),
        "g": rng.choice(words.INGREDIENTS),
        "e": rng.choice(words.DISHES),
        "g2": rng.choice(words.INGREDIENTS),
        "l": rng.choice(words.LANGUAGES),
        "ti": names.title(rng),
    }


def _message(rng: Random, template: str) -> str:
    """Fill a template; often with a greeting, a closing word or a second thought around it."""
    text = template.format(**_slots(rng))
    opener, closer = (rng.choice(options).format(**_slots(rng)) for options in (_OPENERS, _CLOSERS))
    inner = uncapital(text) if opener.endswith(", ") and not text.startswith(("I ", "IT")) else text
    return f"{opener}{inner}{closer}"


def _chatty(text: str) -> str:
    return text.lower().rstrip(".?!").replace(",", "")


def _titles(rng: Random, labels: Sequence[Label]) -> list[str]:
    """Name the labels: usually by meaning, sometimes by letters or invented words, which only
    examples can explain.
    """
    roll = rng.random()
    if roll < 0.08:
        return rng.sample("ABCDEFGHXYZ", len(labels))
    if roll < 0.14:
        return [f"{names.invented(rng).lower()}" for _ in labels]
    if roll < 0.18:
        return [str(place) for place in rng.sample(range(1, 30), len(labels))]
    change: Callable[[str], str] = rng.choice((str, str, str, capital, capital, str.upper))
    tail = (
        rng.choice(("", "", "", "", " department", " team", " desk"))
        if labels[0] in DEPARTMENTS
        else ""
    )
    return [change(rng.choice(label.titles)) + tail for label in labels]


_SETS: tuple[tuple[tuple[Label, ...], str], ...] = (
    (DEPARTMENTS, "Department|Team|Forward to|Goes to|Route to|Desk|Label"),
    (DEPARTMENTS, "Department|Team|For|Send to|Category"),
    (DEPARTMENTS, "Department|Who should answer|Queue"),
    (BANKING, "Topic|Subject|Label|Intent|Category"),
    (TRAVEL, "Topic|Subject|Label|Area"),
    (ASSISTANT, "Intent|Topic|Label|Domain"),
    (FEELING, "Feeling|Sentiment|Opinion|Label"),
    (URGENCY, "Urgency|Priority|Level"),
    (KINDS, "Kind|Type|Sort of sentence|Label"),
    (THINGS, "Kind|Type|Category|is"),
    (NAMES, "Kind|Type|What is it"),
)


def label_task(rng: Random, materials: Materials) -> Task:
    """Return the task of labelling texts, with a few labels of one set."""
    known, words_for = rng.choice(_SETS)
    labels = rng.sample(known, min(len(known), rng.choice((2, 3, 4, 5, 6))))
    titles = _titles(rng, labels)
    spoken = known in (DEPARTMENTS, BANKING, TRAVEL, ASSISTANT)
    chatty = spoken and rng.random() < 0.25

    def draw(rng: Random) -> Example:
        place = rng.randrange(len(labels))
        template = rng.choice(labels[place].texts)
        text = _message(rng, template) if spoken else template.format(**_slots(rng))
        return Example(_chatty(text) if chatty else text, titles[place])

    return _label_layout(rng, draw, titles, words_for, spoken)


def _label_layout(
    rng: Random,
    draw: Callable[[Random], Example],
    titles: Sequence[str],
    words_for: str,
    spoken: bool,
) -> Task:
    shown = ", ".join(titles)
    instructions = (
        f"Labels: {shown}",
        f"Choose one of: {shown}.",
        f"Classes: {shown}",
        "Label the text.",
        "Give the label.",
        f"Is it {', '.join(titles[:-1])} or {titles[-1]}?",
    )
    sources = (
        ("Message", "Customer", "Mail", "Request", "Text", "User")
        if spoken
        else ("Text", "Sentence", "Input", "Word")
    )
    return Task(draw, instructions, sources, words_for.split("|"))


def topic_task(rng: Random, materials: Materials) -> Task:
    """Return the task of naming the subject from which a real sentence comes."""
    if len(materials.by_subject) < 2:
        return label_task(rng, materials)
    chosen = rng.sample(
        list(materials.by_subject), rng.randint(2, min(4, len(materials.by_subject)))
    )

    def draw(rng: Random) -> Example:
        subject, sentences = rng.choice(chosen)
        return Example(rng.choice(sentences), subject)

    return _label_layout(
        rng, draw, [subject for subject, _ in chosen], "Subject|Topic|Field|Label", False
    )


def tense_task(rng: Random, materials: Materials) -> Task:
    """Return the task of naming the tense of a sentence."""
    past, present, future = rng.choice(
        (("past", "present", "future"), ("Past", "Present", "Future"), ("before", "now", "later"))
    )

    def draw(rng: Random) -> Example:
        verb, who = rng.choice(VERBS), rng.choice((names.first_name, names.person))(rng)
        thing = rng.choice(verb.objects)
        form, label = rng.choice(
            (
                (verb.past, past),
                (verb.third, present),
                (f"will {verb.base}", future),
                (f"is {verb.ing}", present),
                (f"is going to {verb.base}", future),
            )
        )
        return Example(sentence(f"{who} {form} {thing}"), label)

    return _label_layout(rng, draw, (past, present, future), "Tense|Time|Label", False)


LABELLING = (
    label_task,
    label_task,
    label_task,
    label_task,
    label_task,
    label_task,
    topic_task,
    tense_task,
)
