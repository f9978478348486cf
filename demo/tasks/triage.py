"""Text → label: a customer's message goes to one of six departments of a household shop.

    Good morning, I ordered a kettle last week. The van drove past my house and nobody rang. Is there news about my parcel?
    → delivery

A message is a greeting, a few words that tell nothing, perhaps what is the matter (a core), and what it is about (a topic
in a frame). Frames are shared by all departments, so that they cannot give the answer away; each core and each frame belongs
to one part only, so a test message says nothing in the words of a training message but the topic itself.
"""

from __future__ import annotations

import re
from random import Random

from edgeprefix.demo.tasks.task import DemoRow, DemoTask, Part, cut
from edgeprefix.demo.tasks.words import capital, items, lines

CORES: dict[str, tuple[str, ...]] = {
    "billing": lines("""
        you (charged|billed) me twice for the same {item}
        my card was charged (twice|two times)
        the invoice for my {item} shows the wrong (price|amount)
        I need (an invoice|a receipt) for my (office|taxes)
        the amount on my bank statement is (too high|wrong)
        can I pay for the {item} in (three|six) parts
        I paid (by card|by bank transfer) but you still ask me for money
        there is a charge on my card that I do not (know|understand)
        the discount is missing from my (bill|invoice)
        why does my bill show (a fee|an extra fee)
        you sent me a (payment reminder|reminder) but I have paid
        please send the (bill|invoice) to my company
        the tax on the invoice is (wrong|missing)
        do you take (cash|credit cards|cheques) as payment
        my payment was (refused|declined), although there is money on my card
        a {item} that I never ordered is on my (bill|card)
        the voucher was not taken off the (price|total)
        the total of my (bill|invoice) does not add up
        I would like to pay by (invoice|bank transfer)
        you took the money from my (bank|card) twice
        my bank says that your payment (failed|was stopped)
        the price I paid is (higher|more) than the price you showed
        I need a copy of the bill for (March|May|last year)
        why was I charged (ten|five|twenty) pounds more
        the (company|name) on the invoice is wrong
        which bank account must I send the payment to
        I have paid the bill for the {item} two times by mistake
        how do I pay the rest of my (bill|invoice)
        a fee of (six|nine) pounds is on my bill
        your payment page does not accept my card
    """),
    "delivery": lines("""
        I am still waiting for my (parcel|box)
        where is my (parcel|package) now
        the driver put the {item} down at the wrong (door|house)
        the van drove past my house and nobody rang
        the tracking page has shown the same for (days|a week)
        my {item} was delivered to (a neighbour|the wrong street)
        can you deliver it on (Saturday|Friday) instead
        the courier says that I was not at home, but I was
        how many days is a parcel on its way to (Wales|the islands)
        I need my (parcel|package) before (Friday|the weekend)
        can the driver carry the {item} up the stairs
        the delivery is already (three|four|five) days late
        please leave the parcel with my neighbour
        only one of the two boxes has (come|arrived)
        the tracking number does not work
        when will the van (come|be here)
        the box was left outside and is (wet|gone)
        the driver should have called before he came
        I would like to collect the parcel (myself|from the depot)
        the parcel says delivered but there is nothing at my door
        can you ship to a (post office|parcel shop)
        the courier went to my old address
        my package is stuck at (customs|the depot)
        I waited at home all day and no driver came
        please send the {item} to my office and not to my house
        how much is the shipping for a {item}
        which day will the parcel be delivered
        the driver was rude and threw the box over the fence
        has my {item} been shipped
        the package went back to the depot
    """),
    "returns": lines("""
        the {item} shall go back to you
        how can I (return|send back) the {item}
        the {item} is too (small|big), I want another size
        I would like to swap the {item} for a (blue|bigger|smaller) one
        you sent me the wrong {item}, how do I send it back
        I do not like the {item} and want my money back
        please send me a return label
        I sent the {item} back but have no refund
        can I still return it after (thirty|forty) days
        it was a gift and I would like to exchange it
        I have changed my mind about the {item} and want to return it
        when do I get the refund for the things I sent back
        do I have to pay for sending it back
        I lost the return label
        the colour is not what I wanted, can I exchange it
        can I bring the {item} back to your shop
        I returned two things but only one was refunded
        I want to give the {item} back
        is it possible to return a {item} that I have used
        I ordered two by mistake and want to return one
        must I send it back in the same box
        I would like a refund, the {item} is not for me
        where do I take the return parcel
        my refund has not come since I returned the {item}
        I would rather have the {item} in another colour, will you swap it
        the {item} does not fit, I want to send it back
        how many days do I have to return the {item}
        please take the {item} back, I do not need it
        I got the wrong size and want to swap it
        did my return reach you
    """),
    "account": lines("""
        I cannot log in
        I have forgotten my password
        my (email|e-mail) address is an old one, please change it
        how can I have my account removed
        my account is locked
        I did not get the (link|email) to reset my password
        the website says that my password is wrong
        I want to change the name on my account
        somebody else was in my account
        how do I change my password
        I have two accounts and need only one
        please stop sending me your newsletter
        I cannot sign in (on my phone|with my new phone)
        my user name is not known to your website
        please close my account
        the code for my login never comes
        how do I sign up for an account
        I have a new phone number, please change it in my profile
        my profile shows the wrong birthday
        I think that my account was hacked
        I am logged out again and again
        what data do you keep about me
        the reset link for my password has expired
        I would like to use another email to log in
        my (points|bonus points) are gone from my account
        your website does not let me sign up
        I want no more emails from you
        I can not find the page for my profile
        the login page stays white
        can my wife and I use one account
    """),
    "support": lines("""
        the {item} stays dead when I press the button
        my {item} (rattles|squeaks) when it runs
        the {item} worked for a week and then no more
        a part of the {item} is broken
        the {item} gets too hot
        can you repair my {item}
        I need a spare part for my {item}
        the {item} smells of smoke when I use it
        the handle of the {item} came off
        how do I clean the filter of the {item}
        the light on the {item} is red and it will not start
        my {item} only runs for (ten|five) minutes, then it must charge
        how much does it cost to have the {item} mended
        the {item} is still under guarantee and has a fault
        the {item} turns itself off
        the button on the {item} is stuck
        water comes out of the {item}
        nothing shows on the display of the {item}
        the {item} shows an error
        can somebody come and mend the {item}
        there is a crack in my {item}
        how do I put the {item} together
        the motor of the {item} does not run
        the {item} leaks oil
        the manual does not say how to use the {item}
        the plug of my {item} gives sparks
        the lid of the {item} does not close
        the {item} has a fault and needs a new switch
        the {item} vibrates and is very loud
        one wheel of the {item} is broken
    """),
    "sales": lines("""
        is there a (red|blue|green) {item} in your range
        when will the {item} be in stock again
        is the {item} sold out
        do you sell (a bigger|a smaller|another) {item}
        I am looking for a {item} that is light
        how many {item}s do you have left
        will there be a new {item} this year
        can you keep a {item} for me in the shop
        is this {item} also made in wood
        which {item} fits into a small kitchen
        how big is the {item}
        do you still sell the old {item}
        is there a cheaper {item} in your shop
        tell me when the {item} is available
        your website says that the {item} is not available
        does your shop in town have the {item}
        I would like to know how heavy the {item} is
        you sell two {item}s, how do they differ
        I want to buy ten {item}s, do you have so many
        is the {item} good for children
        are there other colours of this {item}
        I cannot find the {item} in your shop
        can I see the {item} in your shop before I buy it
        do you have anything like this {item} for my garden
        when do you get new {item}s
        is the black {item} still available
        will you have more {item}s next month
        which of your {item}s is the best
        do you sell {item}s for the left hand
        what is the {item} made of
    """),
}
LABELS = tuple(CORES)
_TOPICS: dict[str, tuple[str, ...]] = {
    "billing": items("""
        my invoice, my last bill, the payment, my credit card, the receipt, the fee on my bill, the tax on the invoice,
        the charge on my card, the amount on my bill, the bank transfer, your payment reminder, the total of my invoice,
        the payment by card, the money you took from my bank"""),
    "delivery": items("""
        my parcel, the package, the driver, the courier, the delivery van, the tracking number, the delivery date,
        the delivery, the shipping of my parcel, the box at my door, the parcel depot, the late package, my parcel from May,
        the driver with my parcel"""),
    "returns": items("""
        the refund, my return, the return label, the exchange, the {item} that I sent back, my refund from May,
        the exchange of my {item}, the return parcel, the refund for my {item}, the wrong size, returning the {item},
        exchanging the {item}, my right to return it, the swap for another size"""),
    "account": items("""
        my password, my login, my user name, my account, my profile, the newsletter, my email address, the reset link,
        the code for my login, my new password, my online account, the login page, the old email address,
        the name on my account"""),
    "support": items("""
        the strange noise, my broken {item}, the motor of the {item}, the battery, the button on the {item}, the broken switch,
        the fault of my {item}, the repair, a spare part, the manual, the broken handle, the repair of my {item},
        the noise of the {item}, the motor that does not run"""),
    "sales": items("""
        the price of the {item}, your offer for the {item}, your catalogue, the new model of the {item}, the sale in your shop,
        the colours of the {item}, your price list, the {item} in your shop window, the stock of {item}s, your prices,
        the price in the catalogue, the sale price of the {item}, your range of {item}s, the models in your shop"""),
}
_FRAMES = lines("""
    there is a problem with {topic}
    I have a question about {topic}
    nobody could tell me anything about {topic}
    please have a look at {topic}
    I am writing because of {topic}
    something is wrong with {topic}
    I am calling about {topic}
    can you tell me more about {topic}
    who takes care of {topic}
    I need help with {topic}
    what about {topic}
    I do not understand {topic}
    it is about {topic}
    my question is about {topic}
    my wife asked me to write about {topic}
    I would like to talk to somebody about {topic}
    I have waited for days for an answer about {topic}
    who can help me with {topic}
    please write to me about {topic}
    last week I called about {topic}
    I was told to write to you about {topic}
    I am not happy with {topic}
    I am worried about {topic}
    is there any news about {topic}
    please explain {topic}
    whom do I ask about {topic}
    I hope that you can help me with {topic}
    there seems to be a mistake with {topic}
    I wrote to you in May about {topic}
    could somebody check {topic}
    the matter is {topic}
    please call me back about {topic}
    I could not find anything about {topic}
    we talked on the phone about {topic}
    this is my second message about {topic}
    everything was fine, but not {topic}
    the only trouble is {topic}
    I want to complain about {topic}
    we have had nothing but trouble with {topic}
    I am not sure about {topic}
    I would be glad to hear about {topic}
    I am confused by {topic}
    a friend told me to ask about {topic}
    for weeks I have asked about {topic}
    do you know anything about {topic}
    I expect an answer about {topic}
    I must speak to somebody about {topic}
    no one answers my questions about {topic}
    where can I read about {topic}
    I have heard nothing about {topic}
""")

_ITEMS = items("""
    kettle, lamp, toaster, fan, heater, mixer, vacuum cleaner, drill, clock, radio, iron, blender, mower, juicer, printer,
    hair dryer, razor, coffee machine, sewing machine, dish rack, garden hose, tent, bicycle, scale, camera, speaker""")
_GREETINGS = ("",) * 6 + items(
    "Hello, Hi, Good morning, Good evening, Dear team, Hi there, Hello again, Excuse me, Help, Hey"
)
_CONTEXT = ("",) * 12 + lines("""
    I ordered (a|the) {item} (last week|on Monday|in May|two weeks ago).
    I bought (a|the) {item} from you (in March|last month|on Sunday).
    My order number is {number}.
    It is about order {number}.
    I have been a customer since (2015|2018|2021).
    This is the second time that I write.
    My name is (Anna|Peter|Maria|Tom|Ruth|Omar).
    I have been your customer for years.
    I live in (a village|the city|Leeds|Bristol).
    It was a present for my (mother|son|brother).
""")
_ENDS = ("",) * 9 + items("Thank you., Thanks a lot., Please help., Please answer soon., Many thanks.")
_SHARE_WITH_CORE = 0.4
_QUESTION = re.compile(
    r"(?:^|, )(can|could|do|does|did|how|when|where|which|why|who|whom|is|are|will|what|must|may|has)\b"
)
_CHOICE = re.compile(r"\(([^()]+\|[^()]+)\)")


def _draw(rng: Random, part: Part) -> DemoRow:
    label = rng.choice(LABELS)
    frame = rng.choice(cut(_FRAMES, part))
    cores = (rng.choice(cut(CORES[label], part)),) if rng.random() < _SHARE_WITH_CORE else ()
    told = (*cores, frame.replace("{topic}", rng.choice(_TOPICS[label])))
    return DemoRow(input=_message(rng, told), references=(label,), entities=(*cores, frame))


def _message(rng: Random, told: tuple[str, ...]) -> str:
    """What is the matter and what it is about, with greeting, context and good-bye; one item throughout."""
    item = rng.choice(_ITEMS)
    matters = [_sentence(_say(rng, text, item)) for text in told]
    greeting, context, end = rng.choice(_GREETINGS), _say(rng, rng.choice(_CONTEXT), item), rng.choice(_ENDS)
    pieces = [piece for piece in (context, *map(capital, matters), end) if piece]
    if greeting:
        first = pieces[0] if pieces[0].startswith("I ") else pieces[0][:1].lower() + pieces[0][1:]
        pieces[0] = f"{greeting}, {first}"
    text = " ".join(pieces)
    return text.lower() if rng.random() < 0.15 else text


def _sentence(text: str) -> str:
    return text + ("?" if _QUESTION.search(text) else ".")


def _say(rng: Random, template: str, item: str) -> str:
    """Chooses among `(this|that)` and fills in the item and a number."""
    text = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), template)
    return text.replace("{item}", item).replace("{number}", f"{rng.randint(100, 999)}-{rng.randint(10, 99)}")


TRIAGE = DemoTask(name="triage", title="text → label", metric="accuracy", draw=_draw, labels=LABELS)
