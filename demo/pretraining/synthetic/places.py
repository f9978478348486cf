"""Restaurants, pubs, coffee shops, hotels and shops: records of places and what a guide would
write.
"""

from random import Random

from edgeprefix.demo.pretraining.synthetic import names, words
from edgeprefix.demo.pretraining.synthetic.facets import (
    Domain,
    Facet,
    facet,
    fragments,
    number,
    one_of,
    spread,
)

_CHEAP, _MIDDLE, _DEAR = (
    ["cheap", "low", "inexpensive", "budget"],
    ["moderate", "average", "medium"],
    ["high", "expensive"],
)


def _price_range(rng: Random) -> str:
    sign, low = rng.choice("£££$€"), rng.randrange(4, 60)
    high = low + rng.choice((5, 10, 5, 15, rng.randint(2, 20)))
    return rng.choice(
        (
            f"{sign}{low}-{high}",
            f"{sign}{low}-{sign}{high}",
            f"less than {sign}{low}",
            f"more than {sign}{low}",
            f"under {sign}{low}",
            f"over {sign}{low}",
            f"about {sign}{low}",
        )
    )


def _stars(rng: Random) -> str:
    top = rng.choice((5, 5, 5, 10))
    score = rng.randint(1, top)
    return rng.choice(
        (
            f"{score} out of {top}",
            f"{score} out of {top}",
            f"{score}/{top}",
            f"{score} stars" if score > 1 else "1 star",
            f"{score}.{rng.randint(0, 9)}" if score < top else f"{score}",
        )
    )


def _level_price() -> Facet:
    cheap = fragments(
        "cheap|low-priced|inexpensive|affordable",
        "with low prices|at a low price|for little money",
        "is cheap|has low prices|is in the low price range|costs little",
        "",
        "Prices at {n} are low|The price range of {n} is low",
    )
    middle = fragments(
        "moderately priced|mid-priced|reasonably priced",
        "with moderate prices|at a moderate price",
        "is moderately priced|has a moderate price range|has average prices",
        "",
        "Prices at {n} are moderate|The price range of {n} is average",
    )
    dear = fragments(
        "expensive|high-priced|pricey",
        "with high prices|in the high price range",
        "is expensive|has high prices|is in the high price range",
        "",
        "Prices at {n} are high",
    )
    special = {
        **dict.fromkeys(_CHEAP, cheap),
        **dict.fromkeys(_MIDDLE, middle),
        **dict.fromkeys(_DEAR, dear),
    }
    return facet(
        "price|prices|priceLevel|price level|cost|price band|budget",
        one_of(*_CHEAP, *_MIDDLE, *_DEAR),
        special=special,
        ask="How expensive is {n}?|What are the prices at {n} like?",
    )


def _level_rating() -> Facet:
    low = fragments(
        "poorly rated|low-rated",
        "with a low rating|with a poor customer rating",
        "has a low rating|is poorly rated|is rated low by customers|has a low customer rating",
        "",
        "Customers gave {n} a low rating|Its customer rating is low",
    )
    middle = fragments(
        "average|averagely rated",
        "with an average rating|with an average customer rating",
        "has an average rating|is rated average by customers|has an average customer rating",
        "",
        "Customers rate {n} as average",
    )
    high = fragments(
        "highly rated|well-rated|top-rated|excellent",
        "with a high rating|with a high customer rating",
        "has a high rating|is highly rated|is rated highly by customers|has excellent reviews",
        "Highly rated",
        "Customers rate {n} highly|Its customer rating is high",
    )
    return facet(
        "rating|guest rating|customers say|reviews|quality|score|customerScore|ratings",
        one_of("low", "average", "high", "poor", "excellent"),
        special={"low": low, "poor": low, "average": middle, "high": high, "excellent": high},
        ask="How is {n} rated?|How do customers rate {n}?",
    )


def _children() -> Facet:
    yes = fragments(
        "family-friendly|child-friendly|kid-friendly|family friendly",
        "for families|that welcomes children|where children are welcome|for the whole family",
        "is family-friendly|welcomes families|is child friendly|is a good place for children"
        "|is kid friendly|welcomes children of all ages",
        "Family-friendly|Good for families with children",
        "Children are welcome|Families are welcome|It is a good choice for the whole family",
    )
    no = fragments(
        "adults-only",
        "for adults|that does not welcome children|without children",
        "is not family-friendly|is not suitable for children|is for adults only|does not welcome "
        "children"
        "|is not child friendly|is not kid friendly",
        "",
        "Children are not welcome|It is not a place for children|Families with children should go elsewhere",
    )
    return facet(
        "families|kids|child friendly|childFriendly|children welcome|good for kids|family place",
        one_of("yes", "no"),
        special={"yes": yes, "no": no},
        ask="Is {n} a place for children?|Are children welcome at {n}?",
    )


_FOOD = facet(
    "cuisine|food type|kitchen|serves|menu|foodStyle|dishes",
    spread(one_of(*words.FOODS), one_of(*words.FOODS), one_of(*words.DISHES)),
    pre="",
    post="that serves {v}|serving {v}|offering {v}|with {v}|that offers {v}|where you can eat {v}",
    verb="serves {v}|offers {v}|sells {v}|provides {v}|has {v} on the menu|specialises in {v}|is known for {v}"
    "|is famous for its {v}",
    front="Serving {v}|Known for {v}",
    full="You can get {v} at {n}|The menu offers {v}|For {v}, try {n}",
    ask="What can you eat at {n}?|What does {n} serve?|What kind of food does {n} offer?",
)


def _food() -> Facet:
    """Cuisines need the word "food" after them, dishes do not."""
    cuisine = {}
    for style in words.FOODS:
        options = (f"{style} food", f"{style} food", f"{style} dishes", f"{style} cuisine")
        base = _FOOD.fragments
        cuisine[style] = fragments(
            style,
            "|".join(text.replace("{v}", option) for option in options[1:] for text in base.post),
            "|".join(text.replace("{v}", option) for option in options[1:] for text in base.verb),
            "|".join(text.replace("{v}", option) for option in options[1:] for text in base.front),
            "|".join(text.replace("{v}", option) for option in options[1:] for text in base.full),
        )
    cuisine["seafood"] = fragments(
        "seafood",
        "that serves seafood|offering seafood",
        "serves seafood|offers seafood",
        "Serving seafood",
        "The menu offers seafood",
    )
    return Facet(_FOOD.keys, _FOOD.draw, _FOOD.fragments, cuisine, _FOOD.ask)


_PRICE = facet(
    "price|price range|prices|priceBand|cost per head|typical bill|main courses",
    _price_range,
    post="with prices {v}|with a price range of {v}|in the {v} price range|priced at {v}",
    verb="has a price range of {v}|costs {v}|is in the {v} price range|has prices of {v}",
    front="With a price range of {v}|Priced at {v}",
    full=(
        "Prices are {v}|The price range is {v}|A meal costs {v}|Expect to pay {v}|You will pay {v} "
        "for a meal"
    ),
    ask="What does a meal at {n} cost?|What is the price range of {n}?",
)
_RATING = facet(
    "rating|guest rating|stars|score|review score|customerScore|rated",
    _stars,
    post="with a rating of {v}|with a customer rating of {v}|rated {v}|that customers rate {v}",
    verb="has a rating of {v}|is rated {v}|has a customer rating of {v}|has been rated {v} by its guests"
    "|holds a customer rating of {v}|received a customer rating of {v}",
    front="Rated {v}|With a customer rating of {v}|With a rating of {v}",
    full=(
        "Customers rate {n} {v}|It is rated {v}|Its customer rating is {v}|Guests gave it {v}|The "
        "rating is {v}"
    ),
    ask="What is the rating of {n}?|How many points did guests give {n}?",
)
_AREA = facet(
    "area|district|location|part of town|where|quarter|zone|neighbourhood",
    spread(one_of(*words.AREAS), one_of(*words.AREAS), names.district),
    pre="{v}",
    post="in the {v}|in the {v}|located in the {v}|situated in the {v}|found in the {v}",
    verb="is in the {v}|is located in the {v}|can be found in the {v}|lies in the {v}|is situated in the {v}",
    front="In the {v}|Located in the {v}|Situated in the {v}|Set in the {v}",
    full="You can find {n} in the {v}|You will find it in the {v}",
    ask="In which part of town is {n}?|Where is {n}?",
)
_NEXT = facet(
    "near|close to|next to|neighbour|nearby|landmark|beside|by",
    spread(names.place, names.place, names.street),
    post="near {v}|close to {v}|next to {v}|not far from {v}|located near {v}|by {v}|beside {v}",
    verb="is near {v}|is close to {v}|is located near {v}|stands next to {v}|can be found near {v}|is just by {v}"
    "|is located close to {v}|is situated near {v}",
    front="Near {v}|Close to {v}|Next to {v}|Located near {v}|Just around the corner from {v}|Not far from {v}",
    full="You can find {n} near {v}|You will find it close to {v}|It is next to {v}",
    ask="What is {n} near?|Which place is {n} close to?",
)
_TOWN = facet(
    "city|town|place|village|municipality",
    names.town,
    post="in {v}|located in {v}|in the town of {v}",
    verb="is in {v}|is located in {v}|can be found in {v}",
    front="In {v}|Located in {v}",
    full="You can find {n} in {v}",
    ask="In which town is {n}?",
)
_STREET = facet(
    "address|street|addr|find us",
    names.street,
    post="at {v}|with the address {v}",
    verb="can be found at {v}|stands at {v}|has its address at {v}",
    front="At {v}",
    full="The address is {v}",
    ask="What is the address of {n}?",
)
_PHONE = facet(
    "phone|tel|telephone|call",
    lambda rng: f"{rng.randint(100, 999)} {rng.randint(1000, 9999)}",
    post="with the phone number {v}",
    verb="can be reached on {v}|takes bookings on {v}",
    full="The phone number is {v}|Call {v} to book a table|To book, call {v}",
    ask="What is the phone number of {n}?",
)
_HOURS = facet(
    "opens|opening time|open from|opens at",
    names.clock,
    post="that opens at {v}",
    verb="opens at {v}",
    full="Its doors open at {v}|You can come from {v}",
    ask="When does {n} open?",
)
_CLOSED = facet(
    "closed|closed on|day off|rest day",
    one_of(*words.DAYS),
    verb="is closed on {v}s|does not open on {v}s",
    post="that is closed on {v}s",
    full="Do not come on a {v}: it is closed",
    ask="On which day is {n} closed?",
)
_OWNER = facet(
    "owner|run by|host|chef|manager",
    names.person,
    post="run by {v}|owned by {v}",
    verb="is run by {v}|belongs to {v}|is owned by {v}",
    front="Run by {v}",
    full="The owner is {v}",
    ask="Who runs {n}?",
)
_SEATS = facet(
    "seats|tables|places",
    number(8, 240),
    post="with {v} seats",
    verb="has {v} seats|has room for {v} guests",
    full="There are {v} seats",
    ask="How many seats does {n} have?",
)
_SINCE = facet(
    "since|opened|founded|year",
    names.year,
    post="founded in {v}|opened in {v}",
    verb="was founded in {v}|opened in {v}|has been open since {v}",
    front="Founded in {v}|Open since {v}",
    full="It opened in {v}",
    ask="When was {n} founded?",
)
_NAME_KEYS = (
    "name",
    "title",
    "place",
    "called",
    "venue",
    "id",
    "name of place",
    "business",
    "nameOfPlace",
)


def _yes_no(keys: str, yes: str, no: str, ask: str) -> Facet:
    return facet(
        keys,
        one_of("yes", "no"),
        ask=ask,
        special={"yes": fragments(verb=yes), "no": fragments(verb=no)},
    )


_PARKING = _yes_no(
    "parking|car park",
    "has parking|offers parking|has a car park",
    "has no parking|does not have a car park",
    "Does {n} have parking?",
)
_TERRACE = _yes_no(
    "terrace|outdoor seating|garden",
    "has a terrace|has tables outside",
    "has no terrace|has no tables outside",
    "Does {n} have a terrace?",
)
_DOGS = _yes_no(
    "dogs|dogs allowed|pets",
    "allows dogs|welcomes dogs|lets you bring your dog",
    "does not allow dogs|does not welcome dogs",
    "Are dogs allowed at {n}?",
)

_EATING = (
    _food(),
    _food(),
    _PRICE,
    _level_price(),
    _RATING,
    _level_rating(),
    _AREA,
    _AREA,
    _NEXT,
    _NEXT,
    _children(),
    _children(),
    _TOWN,
    _STREET,
    _PHONE,
    _HOURS,
    _CLOSED,
    _OWNER,
    _SEATS,
    _SINCE,
    _PARKING,
    _TERRACE,
    _DOGS,
)
_ROOMS = facet(
    "rooms|number of rooms",
    number(5, 400),
    post="with {v} rooms",
    verb="has {v} rooms",
    full="There are {v} rooms",
    ask="How many rooms does {n} have?",
)
_NIGHT = facet(
    "price per night|per night|room rate|from",
    lambda rng: names.amount(rng, 30, 400),
    post="with rooms from {v} a night",
    verb="has rooms for {v} a night|charges {v} a night",
    full="A night costs {v}|Rooms cost {v} a night",
    ask="What does a night at {n} cost?",
)
_GOODS = facet(
    "sells|goods|offers|range",
    lambda rng: " and ".join(
        rng.sample([p + "s" for p in words.PRODUCTS if p[-1] not in "fehsx"], 2)
    ),
    post="selling {v}|that sells {v}",
    verb="sells {v}|offers {v}|is known for {v}",
    full="You can buy {v} at {n}",
    ask="What does {n} sell?",
)

EATING = tuple(Domain((kind,), _NAME_KEYS, names.place, _EATING) for kind in words.PLACE_KINDS)
PLACES = (
    EATING
    + tuple(
        Domain(
            (kind,),
            _NAME_KEYS,
            names.place,
            (
                _NIGHT,
                _ROOMS,
                _AREA,
                _NEXT,
                _RATING,
                _level_rating(),
                _level_price(),
                _children(),
                _TOWN,
                _PARKING,
                _DOGS,
                _SINCE,
                _OWNER,
                _PHONE,
            ),
        )
        for kind in ("hotel", "guest house", "hostel", "holiday home")
    )
    + tuple(
        Domain(
            (kind,),
            _NAME_KEYS,
            names.place,
            (
                _GOODS,
                _AREA,
                _NEXT,
                _RATING,
                _level_rating(),
                _level_price(),
                _HOURS,
                _TOWN,
                _STREET,
                _PARKING,
                _SINCE,
                _OWNER,
                _PHONE,
                _CLOSED,
            ),
        )
        for kind in words.SHOPS
    )
)
KIND_KEYS = ("kind", "type", "sort", "what", "category", "class")
PLACE_KIND_KEYS = (*KIND_KEYS, "placeType", "kind of place", "typeOfPlace")
