"""Books, films and songs."""

from edgeprefix.demo.pretraining.synthetic import names, words
from edgeprefix.demo.pretraining.synthetic.facets import Domain, facet, number, one_of, spread

_TITLE = ("title", "name", "called")
BOOK = Domain(
    ("book", "novel", "story"),
    _TITLE,
    names.title,
    (
        facet(
            "author|written by|writer|by",
            names.person,
            post="by {v}|written by {v}",
            verb="was written by {v}|is the work of {v}",
            front="Written by {v}",
            full="{v} is the author|Its author is {v}",
            ask="Who wrote {n}?|Who is the author of {n}?",
        ),
        facet(
            "genre|kind|type",
            one_of(*words.GENRES),
            pre="{v}",
            verb="is {a:v} story|belongs to the {v} genre",
            ask="What is the genre of {n}?",
        ),
        facet(
            "year|published|first published",
            names.year,
            post="from {v}|published in {v}",
            verb="was published in {v}|came out in {v}",
            front="Published in {v}",
            full="It appeared in {v}",
            ask="When was {n} published?|In which year did {n} come out?",
        ),
        facet(
            "pages|length",
            number(40, 980),
            post="of {v} pages|with {v} pages",
            verb="has {v} pages|runs to {v} pages",
            ask="How many pages does {n} have?",
        ),
        facet(
            "publisher",
            names.invented,
            post="published by {v}",
            verb="was published by {v}|is sold by {v}",
            ask="Who published {n}?",
        ),
        facet(
            "setting|set in|place",
            names.town,
            post="set in {v}",
            verb="is set in {v}|takes place in {v}",
            front="Set in {v}",
            ask="Where is {n} set?",
        ),
        facet(
            "hero|main character|about",
            names.person,
            post="about {v}",
            verb="tells the story of {v}|is about {v}",
            ask="Who is {n} about?",
        ),
        facet(
            "language",
            one_of(*words.LANGUAGES),
            pre="{v}",
            post="in {v}",
            verb="was written in {v}",
            ask="In which language was {n} written?",
        ),
        facet(
            "price",
            names.amount,
            verb="costs {v}|can be bought for {v}",
            full="The price is {v}",
            ask="How much does {n} cost?",
        ),
    ),
)
FILM = Domain(
    ("film", "movie"),
    _TITLE,
    names.title,
    (
        facet(
            "director|directed by",
            names.person,
            post="by {v}|directed by {v}",
            verb="was directed by {v}|was made by {v}",
            front="Directed by {v}",
            ask="Who directed {n}?|Who is the director of {n}?",
        ),
        facet("genre|kind", one_of(*words.GENRES), pre="{v}", ask="What is the genre of {n}?"),
        facet(
            "year|released",
            names.year,
            post="from {v}|released in {v}",
            verb="came out in {v}|was released in {v}",
            front="Released in {v}",
            ask="When did {n} come out?",
        ),
        facet(
            "star|actor|cast|leading role",
            names.person,
            post="starring {v}|with {v} in the main role",
            verb="stars {v}|has {v} in the main role",
            front="Starring {v}",
            ask="Who stars in {n}?",
        ),
        facet(
            "length|minutes|running time",
            number(61, 199, "{} minutes"),
            verb="lasts {v}|runs for {v}",
            full="The running time is {v}",
            ask="How long is {n}?",
        ),
        facet(
            "rating|score",
            number(1, 10, "{} out of 10"),
            post="rated {v}",
            verb="is rated {v}|has a score of {v}",
            ask="What is the score of {n}?",
        ),
        facet(
            "country",
            one_of(*words.COUNTRIES),
            post="from {v}",
            verb="was made in {v}|comes from {v}",
            ask="Where was {n} made?",
        ),
        facet(
            "language",
            one_of(*words.LANGUAGES),
            verb="is in {v}|was shot in {v}",
            ask="Which language is {n} in?",
        ),
    ),
)
SONG = Domain(
    ("song", "album", "record"),
    _TITLE,
    names.title,
    (
        facet(
            "singer|artist|by|band",
            spread(names.person, names.invented),
            post="by {v}",
            verb="is by {v}|was recorded by {v}",
            front="Sung by {v}",
            ask="Who recorded {n}?",
        ),
        facet(
            "year|released",
            names.year,
            post="from {v}",
            verb="came out in {v}|was released in {v}",
            front="Released in {v}",
            ask="When was {n} released?",
        ),
        facet(
            "style|genre",
            one_of("jazz", "rock", "pop", "folk", "blues", "soul", "dance"),
            pre="{v}",
            ask="What is the style of {n}?",
        ),
        facet("label", names.invented, verb="was released by {v}", ask="Which label released {n}?"),
        facet(
            "copies|sold",
            number(2, 950, "{},000"),
            verb="sold {v} copies",
            full="{v} copies were sold",
            ask="How many copies of {n} were sold?",
        ),
    ),
)
