"""Everything else that a record may describe: people, books, products, weather, tickets and so on."""

from random import Random

from . import names, words
from .facets import Domain, Draw, facet, fragments, number, one_of, spread
from .phrases import join


def _several(options: tuple[str, ...], low: int = 2, high: int = 3) -> Draw:
    return lambda rng: join(rng.sample(options, rng.randint(low, high)))


def _pet_name(rng: Random) -> str:
    return rng.choice((names.invented(rng, 2), names.first_name(rng)))


_TITLE = ("title", "name", "called")
_NAME = ("name", "full name", "who", "person")

PERSON = Domain(
    ("person",), _NAME, names.person,
    (
        facet("job|profession|works as|occupation", one_of(*words.JOBS), verb="works as {a:v}|is {a:v}|earns a living as {a:v}",
              full="The profession of {n} is {v}", ask="What does {n} do for a living?|What is the job of {n}?"),
        facet("age|years|years old", number(6, 97), verb="is {v} years old|is {v}", ask="How old is {n}?"),
        facet("town|lives in|city|home", names.town, post="from {v}", verb="lives in {v}|has a home in {v}|comes from {v}",
              front="Living in {v}", ask="Where does {n} live?|In which town does {n} live?"),
        facet("country|born in|origin", one_of(*words.COUNTRIES), post="from {v}", verb="was born in {v}|comes from {v}",
              front="Born in {v}", ask="Where was {n} born?|Which country does {n} come from?"),
        facet("birthday|born|date of birth", names.date, verb="was born on {v}", front="Born on {v}",
              ask="When was {n} born?"),
        facet("hobby|likes|interests|pastime", spread(one_of(*words.SUBJECTS), one_of(*words.SPORTS)),
              verb="likes {v}|enjoys {v}|is fond of {v}|is interested in {v}", ask="What does {n} like?|What is the hobby of {n}?"),
        facet("employer|company|works for", names.invented, verb="works for {v}|is employed by {v}",
              ask="Who does {n} work for?"),
        facet("languages|speaks", _several(words.LANGUAGES), verb="speaks {v}|can speak {v}",
              ask="Which languages does {n} speak?"),
        facet("married to|partner|spouse", names.person, verb="is married to {v}", front="Married to {v}",
              ask="Who is {n} married to?"),
        facet("pet", one_of(*words.ANIMALS), verb="has {a:v}|keeps {a:v}|owns {a:v}", ask="What pet does {n} have?"),
        facet("email|mail", lambda rng: f"{names.syllable(rng)}{rng.randint(1, 99)}@{names.invented(rng).lower()}.com",
              verb="can be reached at {v}|has the email address {v}", ask="What is the email address of {n}?"),
    ), ("{he}", "{he}", "{n}"), plain=True,
)
CITY = Domain(
    ("town", "city", "village", "port"), ("name", "city", "place", "town"), names.town,
    (
        facet("country|state", one_of(*words.COUNTRIES), post="in {v}", verb="is in {v}|lies in {v}|belongs to {v}",
              front="Situated in {v}", ask="In which country is {n}?"),
        facet("population|people|inhabitants", lambda rng: f"{rng.randint(1, 900)},{rng.randint(0, 999):03d}",
              post="with {v} inhabitants|of {v} people", verb="has {v} inhabitants|has a population of {v}|is home to {v} people",
              full="The population is {v}", ask="How many people live in {n}?|What is the population of {n}?"),
        facet("river", names.invented, post="on the river {v}", verb="lies on the river {v}|stands on the banks of the {v}",
              front="Set on the river {v}", ask="On which river is {n}?"),
        facet("known for|famous for|product", spread(one_of(*words.DISHES), one_of(*[p + "s" for p in words.PRODUCTS if p[-1]
              not in "fehsx"])), verb="is known for its {v}|is famous for {v}", front="Famous for its {v}",
              ask="What is {n} known for?"),
        facet("mayor", names.person, verb="has a mayor called {v}|is led by {v}", full="The mayor is {v}|{v} is the mayor",
              ask="Who is the mayor of {n}?"),
        facet("founded|year|since", names.year, post="founded in {v}", verb="was founded in {v}|dates from {v}",
              front="Founded in {v}", ask="When was {n} founded?"),
        facet("near|nearest city|neighbour", names.town, post="near {v}|not far from {v}", verb="lies near {v}|is close to {v}",
              front="Near {v}", ask="Which town is {n} close to?"),
    ),
)
PRODUCT = Domain(
    words.PRODUCTS, ("name", "product", "item", "model", "article"), names.brand,
    (
        facet("colour|color", one_of(*words.COLOURS), pre="{v}", post="in {v}", verb="comes in {v}|is {v}",
              full="The colour is {v}", ask="What colour is {n}?|What is the colour of {n}?"),
        facet("material|made of", one_of(*words.MATERIALS), pre="{v}", post="made of {v}", verb="is made of {v}|is built from {v}",
              front="Made of {v}", ask="What is {n} made of?"),
        facet("price|cost|costs", names.amount, post="for {v}|that costs {v}|at a price of {v}", verb="costs {v}|sells for {v}"
              "|is priced at {v}|can be bought for {v}", front="For {v}|Priced at {v}", full="The price is {v}|You can buy it for {v}",
              ask="How much does {n} cost?|What is the price of {n}?"),
        facet("weight", number(2, 90, "{} kg"), post="with a weight of {v}|weighing {v}", verb="weighs {v}|has a weight of {v}",
              front="Weighing {v}", ask="How much does {n} weigh?"),
        facet("maker|brand|made by|company", names.invented, post="made by {v}|from {v}|by {v}", verb="is made by {v}|comes from {v}",
              front="Made by {v}", ask="Who makes {n}?"),
        facet("warranty|guarantee", number(1, 10, "{} years"), post="with a guarantee of {v}",
              verb="comes with a guarantee of {v}|has a warranty of {v}", ask="How long is the guarantee of {n}?"),
        facet("size|height|length", number(5, 220, "{} cm"), verb="measures {v}", post="that measures {v}", ask="What size is {n}?"),
        facet("rating|stars|score", number(1, 5, "{} out of 5"), post="rated {v}", verb="is rated {v}|has a rating of {v}",
              full="Buyers rate it {v}", ask="How do buyers rate {n}?"),
        facet("in stock|available|stock", one_of("yes", "no"), ask="Is {n} in stock?", special={
            "yes": fragments(verb="is in stock|is available now", full="It can be sent at once"),
            "no": fragments(verb="is out of stock|is not available at the moment", full="It is sold out")}),
        facet("condition|state", one_of("new", "used"), pre="{v}", verb="is {v}", ask="Is {n} new or used?"),
        facet("room|for|use", one_of("kitchen", "garden", "office", "bedroom", "garage", "living room"), post="for the {v}",
              verb="is meant for the {v}|is made for use in the {v}", ask="Which room is {n} meant for?"),
    ),
)
BOOK = Domain(
    ("book", "novel", "story"), _TITLE, names.title,
    (
        facet("author|written by|writer|by", names.person, post="by {v}|written by {v}", verb="was written by {v}|is the work of {v}",
              front="Written by {v}", full="{v} is the author|Its author is {v}", ask="Who wrote {n}?|Who is the author of {n}?"),
        facet("genre|kind|type", one_of(*words.GENRES), pre="{v}", verb="is {a:v} story|belongs to the {v} genre", ask="What is the genre of {n}?"),
        facet("year|published|first published", names.year, post="from {v}|published in {v}", verb="was published in {v}|came out in {v}",
              front="Published in {v}", full="It appeared in {v}", ask="When was {n} published?|In which year did {n} come out?"),
        facet("pages|length", number(40, 980), post="of {v} pages|with {v} pages", verb="has {v} pages|runs to {v} pages", ask="How many pages does {n} have?"),
        facet("publisher", names.invented, post="published by {v}", verb="was published by {v}|is sold by {v}", ask="Who published {n}?"),
        facet("setting|set in|place", names.town, post="set in {v}", verb="is set in {v}|takes place in {v}", front="Set in {v}", ask="Where is {n} set?"),
        facet("hero|main character|about", names.person, post="about {v}", verb="tells the story of {v}|is about {v}", ask="Who is {n} about?"),
        facet("language", one_of(*words.LANGUAGES), pre="{v}", post="in {v}", verb="was written in {v}", ask="In which language was {n} written?"),
        facet("price", names.amount, verb="costs {v}|can be bought for {v}", full="The price is {v}", ask="How much does {n} cost?"),
    ),
)
FILM = Domain(
    ("film", "movie"), _TITLE, names.title,
    (
        facet("director|directed by", names.person, post="by {v}|directed by {v}", verb="was directed by {v}|was made by {v}",
              front="Directed by {v}", ask="Who directed {n}?|Who is the director of {n}?"),
        facet("genre|kind", one_of(*words.GENRES), pre="{v}", ask="What is the genre of {n}?"),
        facet("year|released", names.year, post="from {v}|released in {v}", verb="came out in {v}|was released in {v}", front="Released in {v}", ask="When did {n} come out?"),
        facet("star|actor|cast|leading role", names.person, post="starring {v}|with {v} in the main role", verb="stars {v}|has {v} in the main role",
              front="Starring {v}", ask="Who stars in {n}?"),
        facet("length|minutes|running time", number(61, 199, "{} minutes"), verb="lasts {v}|runs for {v}", full="The running time is {v}", ask="How long is {n}?"),
        facet("rating|score", number(1, 10, "{} out of 10"), post="rated {v}", verb="is rated {v}|has a score of {v}", ask="What is the score of {n}?"),
        facet("country", one_of(*words.COUNTRIES), post="from {v}", verb="was made in {v}|comes from {v}", ask="Where was {n} made?"),
        facet("language", one_of(*words.LANGUAGES), verb="is in {v}|was shot in {v}", ask="Which language is {n} in?"),
    ),
)
SONG = Domain(
    ("song", "album", "record"), _TITLE, names.title,
    (
        facet("singer|artist|by|band", spread(names.person, names.invented), post="by {v}", verb="is by {v}|was recorded by {v}", front="Sung by {v}", ask="Who recorded {n}?"),
        facet("year|released", names.year, post="from {v}", verb="came out in {v}|was released in {v}", front="Released in {v}", ask="When was {n} released?"),
        facet("style|genre", one_of("jazz", "rock", "pop", "folk", "blues", "soul", "dance"), pre="{v}", ask="What is the style of {n}?"),
        facet("label", names.invented, verb="was released by {v}", ask="Which label released {n}?"),
        facet("copies|sold", number(2, 950, "{},000"), verb="sold {v} copies", full="{v} copies were sold", ask="How many copies of {n} were sold?"),
    ),
)
EVENT = Domain(
    ("concert", "market", "meeting", "festival", "lecture", "workshop", "party", "exhibition", "race"), ("event", "name", "title", "what"), names.title,
    (
        facet("date|day|when", names.date, post="on {v}", verb="takes place on {v}|is on {v}|will be held on {v}", front="On {v}", full="The date is {v}", ask="When is {n}?|On which date does {n} take place?"),
        facet("time|starts|start|begins", names.clock, post="starting at {v}", verb="starts at {v}|begins at {v}", full="The doors open at {v}", ask="At what time does {n} start?"),
        facet("place|venue|where|location", spread(names.place, names.town, names.street), post="at {v}", verb="will be held at {v}|takes place at {v}", front="Held at {v}", full="The venue is {v}", ask="Where is {n} held?"),
        facet("price|ticket|tickets|entry", names.amount, post="for {v}", verb="costs {v}", full="Tickets cost {v}|A ticket is {v}|Entry costs {v}", ask="How much is a ticket for {n}?"),
        facet("organiser|host|contact", names.person, post="organised by {v}", verb="is organised by {v}|is hosted by {v}", front="Organised by {v}", ask="Who organises {n}?"),
        facet("guests|seats|places", number(10, 900), post="with {v} places", verb="has room for {v} guests", full="There are {v} places", ask="How many places are there at {n}?"),
        facet("topic|theme", one_of(*words.SUBJECTS), post="about {v}", verb="is about {v}|is devoted to {v}", ask="What is {n} about?"),
    ),
)
ANIMAL = Domain(
    words.ANIMALS, ("name", "animal", "pet", "called"), _pet_name,
    (
        facet("age", number(2, 29, "{} years"), verb="is {v} old", ask="How old is {n}?"),
        facet("colour|fur", one_of(*words.COLOURS[:8]), pre="{v}", verb="is {v}", ask="What colour is {n}?"),
        facet("owner|keeper|belongs to", names.person, post="owned by {v}", verb="belongs to {v}|lives with {v}", ask="Who owns {n}?"),
        facet("weight", number(2, 700, "{} kg"), post="weighing {v}", verb="weighs {v}", ask="How much does {n} weigh?"),
        facet("food|eats|diet", one_of("hay", "fish", "seeds", "apples", "carrots", "bread", "leaves", "grass", "corn"), verb="eats {v}|likes to eat {v}|lives on {v}", ask="What does {n} eat?"),
        facet("home|lives|place", spread(names.town, lambda rng: f"the {rng.choice(('barn', 'garden', 'zoo', 'stable', 'kitchen', 'yard'))}"), verb="lives in {v}", ask="Where does {n} live?"),
        facet("mood|character", one_of("shy", "playful", "calm", "lazy", "friendly", "nervous", "curious", "brave"), pre="{v}", verb="is {v}|is rather {v}", ask="What is {n} like?"),
        facet("friendly with children|good with kids", one_of("yes", "no"), ask="Is {n} good with children?", special={"yes": fragments(verb="is good with children|likes children", post="that likes children"), "no": fragments(verb="is not good with children|does not like children", post="that does not like children")}),
    ),
)
TRIP = Domain(
    ("trip", "tour", "journey", "cruise", "flight", "train ride"), ("trip", "name", "tour", "code"), spread(names.title, names.code),
    (
        facet("from|departure|start", names.town, post="from {v}", verb="starts in {v}|leaves from {v}|sets off from {v}", front="Starting in {v}", ask="Where does {n} start?"),
        facet("to|destination|arrival", names.town, post="to {v}", verb="goes to {v}|ends in {v}|takes you to {v}", ask="Where does {n} go?|What is the destination of {n}?"),
        facet("days|duration|lasts", number(2, 29, "{} days"), post="of {v}|lasting {v}", verb="lasts {v}|takes {v}", ask="How long does {n} last?"),
        facet("price|cost|fare", names.amount, post="for {v}", verb="costs {v}|can be booked for {v}", full="The fare is {v}|The price is {v} per person", ask="How much does {n} cost?"),
        facet("departs|leaves|date", names.date, post="on {v}", verb="leaves on {v}|departs on {v}", front="Leaving on {v}", ask="When does {n} leave?"),
        facet("by|transport|travel by", one_of("bus", "train", "boat", "plane", "car", "coach", "ferry"), post="by {v}", verb="goes by {v}", ask="How does {n} travel?"),
        facet("guide|leader", names.person, post="guided by {v}|with {v} as the guide", verb="is led by {v}|is guided by {v}", ask="Who leads {n}?"),
        facet("via|stop", names.town, post="via {v}", verb="stops in {v}|passes through {v}", ask="Where does {n} stop?"),
    ),
)
JOB = Domain(
    ("vacancy", "job", "position", "opening"), ("job", "position", "reference", "vacancy"), lambda rng: f"{rng.choice(words.JOBS)} ({names.code(rng)})",
    (
        facet("company|employer|firm", names.invented, post="at {v}", verb="is offered by {v}|is with {v}", front="At {v}", ask="Which company offers the position {n}?"),
        facet("salary|pay|wage", lambda rng: f"{rng.choice('£$€')}{rng.randint(15, 99)},000", post="with a salary of {v}", verb="pays {v} a year|comes with a salary of {v}", full="The salary is {v}", ask="What is the salary of {n}?"),
        facet("town|place|location", names.town, post="in {v}", verb="is based in {v}", front="Based in {v}", ask="Where is {n} based?"),
        facet("hours|working hours", number(8, 42, "{} hours a week"), post="for {v}", verb="asks for {v}", full="The working time is {v}", ask="What are the hours of {n}?"),
        facet("start|starts on|from", names.date, post="from {v}", verb="starts on {v}", full="The first day is {v}", ask="When does {n} start?"),
        facet("contact|apply to", names.person, full="Please apply to {v}|{v} answers questions", ask="Who is the contact for {n}?"),
        facet("remote|home office", one_of("yes", "no"), ask="Can {n} be done from home?", special={"yes": fragments(verb="can be done from home", full="You can work from home"), "no": fragments(verb="cannot be done from home", full="Working from home is not possible")}),
    ),
)
RECIPE = Domain(
    ("recipe", "dish"), ("recipe", "dish", "name"), lambda rng: f"{names.invented(rng, 2)} {rng.choice(('soup', 'pie', 'cake', 'stew', 'salad', 'bread', 'pudding'))}",
    (
        facet("ingredients|needs|you need", _several(words.INGREDIENTS, 2, 4), post="with {v}|made with {v}", verb="is made with {v}|calls for {v}|needs {v}", full="You need {v}", ask="What is {n} made with?|Which ingredients does {n} need?"),
        facet("time|cooking time|minutes", number(5, 180, "{} minutes"), post="that takes {v}", verb="takes {v}|is ready in {v}|cooks for {v}", front="Ready in {v}", ask="How long does {n} take?"),
        facet("serves|portions|people", number(2, 12, "{} people"), post="for {v}", verb="serves {v}|is enough for {v}", ask="How many people does {n} serve?"),
        facet("origin|from|country", one_of(*words.COUNTRIES), post="from {v}", verb="comes from {v}", ask="Where does {n} come from?"),
        facet("difficulty|level", one_of("easy", "difficult", "simple"), pre="{v}", verb="is {v} to make", ask="How hard is {n} to make?"),
        facet("author|by|cook", names.person, post="by {v}", verb="was written down by {v}", ask="Whose recipe is {n}?"),
        facet("temperature|oven", number(12, 24, "{}0 degrees"), verb="bakes at {v}", full="Heat the oven to {v}", ask="At what temperature does {n} bake?"),
    ),
)
COURSE = Domain(
    ("course", "class", "seminar"), ("course", "name", "title", "code"), spread(lambda rng: f"{rng.choice(words.SUBJECTS).capitalize()} {rng.randint(1, 9)}", names.code),
    (
        facet("teacher|taught by|tutor", names.person, post="with {v}|taught by {v}", verb="is taught by {v}", front="Taught by {v}", full="The teacher is {v}", ask="Who teaches {n}?"),
        facet("day|weekday", one_of(*words.DAYS), post="on {v}s", verb="takes place on {v}s|meets every {v}", ask="On which day is {n}?"),
        facet("time|starts at", names.clock, post="at {v}", verb="starts at {v}", ask="When does {n} start?"),
        facet("room", lambda rng: f"{rng.choice('ABCDEF')}{rng.randint(1, 40)}", verb="meets in room {v}|is held in room {v}", full="The room is {v}", ask="In which room is {n}?"),
        facet("fee|price", names.amount, verb="costs {v}", post="for {v}", full="The fee is {v}", ask="How much is the fee for {n}?"),
        facet("level", one_of("beginners", "advanced students", "children", "adults"), post="for {v}", verb="is meant for {v}|is open to {v}", ask="Who is {n} for?"),
        facet("weeks|length", number(2, 30, "{} weeks"), post="of {v}|lasting {v}", verb="lasts {v}|runs for {v}", ask="How long does {n} last?"),
    ),
)
TICKET = Domain(
    ("ticket", "request", "case"), ("ticket", "id", "case", "number"), lambda rng: names.code(rng).lstrip("#"),
    (
        facet("customer|from|sender|user", names.person, post="from {v}|opened by {v}", verb="was opened by {v}|came from {v}", front="Opened by {v}", ask="Who opened {n}?"),
        facet("problem|subject|about|issue", one_of("a broken screen", "a late parcel", "a missing refund", "a lost password", "a wrong invoice", "a slow connection", "a faulty battery", "a cancelled booking", "a double charge"), post="about {v}|concerning {v}", verb="is about {v}|concerns {v}|reports {v}", full="The customer reports {v}", ask="What is {n} about?"),
        facet("status|state", one_of("open", "closed", "waiting", "solved"), pre="{v}", verb="is {v}|is now {v}", ask="What is the status of {n}?"),
        facet("priority|urgency", one_of("high", "low", "normal"), post="with {v} priority", verb="has {v} priority", full="The priority is {v}", ask="What is the priority of {n}?"),
        facet("agent|assigned to|handled by", names.person, post="assigned to {v}", verb="is assigned to {v}|is handled by {v}", full="{v} is working on it", ask="Who handles {n}?"),
        facet("date|received|created", names.date, post="from {v}", verb="was received on {v}|was created on {v}", front="Received on {v}", ask="When was {n} received?"),
        facet("product|item|device", names.brand, post="for the {v}", verb="concerns the {v}", ask="Which product does {n} concern?"),
    ),
)
HOUSE = Domain(
    ("flat", "house", "apartment", "cottage"), ("address", "home", "object"), names.street,
    (
        facet("rooms|bedrooms", number(2, 9), post="with {v} rooms", verb="has {v} rooms", full="There are {v} rooms", ask="How many rooms does {n} have?"),
        facet("rent|price per month", lambda rng: names.amount(rng, 300, 3000), post="for {v} a month", verb="costs {v} a month|can be rented for {v} a month", full="The rent is {v}", ask="What is the rent of {n}?"),
        facet("area|size", number(25, 300, "{} square metres"), post="of {v}", verb="measures {v}|has {v}", ask="How large is {n}?"),
        facet("floor", lambda rng: rng.choice(("first", "second", "third", "fourth", "top")), post="on the {v} floor", verb="is on the {v} floor", ask="On which floor is {n}?"),
        facet("near|close to", spread(names.place, lambda rng: f"the {rng.choice(('station', 'park', 'school', 'hospital', 'lake', 'beach', 'airport'))}"), post="near {v}|close to {v}", verb="is near {v}|is close to {v}", front="Near {v}", ask="What is {n} near?"),
        facet("garden", one_of("yes", "no"), ask="Does {n} have a garden?", special={"yes": fragments(post="with a garden", verb="has a garden"), "no": fragments(post="without a garden", verb="has no garden")}),
        facet("pets", one_of("yes", "no"), ask="Are pets allowed at {n}?", special={"yes": fragments(verb="allows pets", full="Pets are welcome"), "no": fragments(verb="does not allow pets", full="Pets are not allowed")}),
        facet("owner|landlord", names.person, post="owned by {v}", verb="belongs to {v}", full="The owner is {v}", ask="Who owns {n}?"),
    ),
)
FIRM = Domain(
    ("company", "firm", "charity", "club", "bank"), ("name", "company", "organisation"), lambda rng: f"{names.invented(rng)}{rng.choice(('', '', ' Ltd', ' Group', ' & Co'))}",
    (
        facet("founder|founded by", names.person, post="founded by {v}", verb="was founded by {v}", front="Founded by {v}", ask="Who founded {n}?"),
        facet("founded|year|since", names.year, post="founded in {v}", verb="was founded in {v}|has existed since {v}", front="Founded in {v}", ask="When was {n} founded?"),
        facet("seat|city|headquarters|based in", names.town, post="based in {v}|from {v}", verb="is based in {v}|has its main office in {v}", front="Based in {v}", ask="Where is {n} based?"),
        facet("staff|employees|workers", number(3, 9000), post="with {v} employees", verb="employs {v} people|has {v} employees", full="About {v} people work there", ask="How many people work for {n}?"),
        facet("head|director|boss|chair", names.person, post="led by {v}", verb="is led by {v}|is headed by {v}", full="The head is {v}", ask="Who leads {n}?"),
        facet("turnover|sales|revenue", number(2, 900, "£{} million"), post="with sales of {v}", verb="has sales of {v}|earns {v} a year", ask="What are the sales of {n}?"),
    ),
)
WEATHER = Domain(
    ("forecast",), ("place", "town", "station", "city"), names.town,
    (
        facet("sky|weather|conditions", one_of(*words.WEATHER), verb="will be {v}|expects {v} weather", full="The weather in {n} will be {v}|It will be {v} in {n}", ask="What will the weather be like in {n}?"),
        facet("temperature|high|max", number(2, 38, "{} degrees"), verb="will reach {v}|can expect {v}", full="The temperature in {n} rises to {v}|Temperatures reach {v}", ask="How warm will it be in {n}?"),
        facet("low|min|at night", number(2, 15, "{} degrees"), full="At night it cools down to {v}|The lowest temperature is {v}", ask="How cool will it be in {n} at night?"),
        facet("wind", lambda rng: f"{rng.randint(3, 70)} km/h", verb="will have winds of {v}", full="The wind blows at {v}|Expect winds of {v}", ask="How strong is the wind in {n}?"),
        facet("rain|chance of rain", number(1, 9, "{}0 per cent"), full="The chance of rain is {v}|Rain is possible, with a chance of {v}", ask="What is the chance of rain in {n}?"),
        facet("sunrise", number(10, 59, "6:{}"), full="The sun rises at {v}", ask="When does the sun rise in {n}?"),
    ), ("{n}",), plain=True,
)
MATCH = Domain(
    ("match", "game"), ("match", "game", "teams"), lambda rng: f"{names.town(rng)} v {names.town(rng)}",
    (
        facet("score|result|final score", lambda rng: f"{rng.randint(0, 9)}-{rng.randint(0, 9)}", verb="ended {v}|finished {v}", full="The final score was {v}", ask="What was the score of {n}?"),
        facet("date|played on", names.date, post="on {v}", verb="was played on {v}", front="Played on {v}", ask="When was {n} played?"),
        facet("sport", one_of(*words.SPORTS), pre="{v}", ask="Which sport was {n}?"),
        facet("crowd|spectators", number(100, 9000), verb="was seen by {v} people|drew a crowd of {v}", full="{v} people watched", ask="How many people watched {n}?"),
        facet("best player|star", names.person, full="The best player was {v}|{v} was the best player", ask="Who was the best player of {n}?"),
        facet("referee", names.person, verb="was refereed by {v}", full="The referee was {v}", ask="Who was the referee of {n}?"),
        facet("stadium|ground|place", names.invented, post="at {v} Park", verb="was played at {v} Park", ask="Where was {n} played?"),
    ), copula="was",
)
CAR = Domain(
    words.VEHICLES, ("model", "name", "vehicle"), names.brand,
    (
        facet("colour", one_of(*words.COLOURS), pre="{v}", verb="is painted {v}", ask="What colour is {n}?"),
        facet("year|built", names.year, post="from {v}|built in {v}", verb="was built in {v}", front="Built in {v}", ask="When was {n} built?"),
        facet("mileage|distance", lambda rng: f"{rng.randint(2, 200)},000 miles", post="with {v} on the clock", verb="has done {v}", ask="How far has {n} gone?"),
        facet("price|asking price", lambda rng: names.amount(rng, 500, 9000), post="for {v}", verb="costs {v}|is for sale at {v}", full="The asking price is {v}", ask="How much does {n} cost?"),
        facet("fuel|power", one_of("petrol", "diesel", "electric power", "gas"), verb="runs on {v}", post="running on {v}", ask="What does {n} run on?"),
        facet("seats", number(2, 80), post="with {v} seats", verb="has {v} seats|carries {v} people", ask="How many seats does {n} have?"),
        facet("owner|seller", names.person, post="sold by {v}", verb="belongs to {v}", ask="Who owns {n}?"),
        facet("top speed|speed", number(20, 240, "{} km/h"), post="with a top speed of {v}", verb="reaches {v}|has a top speed of {v}", ask="How fast is {n}?"),
    ),
)
PLANT = Domain(
    ("flower", "tree", "shrub", "plant", "herb"), ("name", "plant"), names.invented,
    (
        facet("height", number(5, 900, "{} cm"), verb="grows to {v}|reaches {v}", post="growing to {v}", ask="How tall does {n} grow?"),
        facet("colour|flowers", one_of(*words.COLOURS[3:]), post="with {v} flowers", verb="has {v} flowers", ask="What colour are the flowers of {n}?"),
        facet("found in|grows in|country", one_of(*words.COUNTRIES), post="from {v}|found in {v}", verb="grows in {v}|is found in {v}", front="Found in {v}", ask="Where does {n} grow?"),
        facet("flowers in|month", one_of(*words.MONTHS), verb="flowers in {v}", post="that flowers in {v}", ask="When does {n} flower?"),
        facet("water|watering", one_of("once a week", "twice a week", "every day", "every other day"), verb="needs water {v}", full="Water it {v}", ask="How often does {n} need water?"),
        facet("discovered by|named by", names.person, post="first described by {v}", verb="was first described by {v}", ask="Who first described {n}?"),
    ),
)

OTHERS = (
    PERSON, PERSON, CITY, PRODUCT, PRODUCT, PRODUCT, BOOK, FILM, SONG, EVENT, ANIMAL, TRIP, JOB, RECIPE, COURSE, TICKET,
    HOUSE, FIRM, WEATHER, MATCH, CAR, PLANT,
)
