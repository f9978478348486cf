"""Everything but places that a record may describe; a domain that stands twice comes twice as
often.
"""

from edgeprefix.demo.pretraining.synthetic.occasions import COURSE, EVENT, MATCH, TRIP, WEATHER
from edgeprefix.demo.pretraining.synthetic.people import CITY, FIRM, HOUSE, JOB, PERSON, TICKET
from edgeprefix.demo.pretraining.synthetic.things import ANIMAL, CAR, PLANT, PRODUCT, RECIPE
from edgeprefix.demo.pretraining.synthetic.works import BOOK, FILM, SONG

OTHERS = (
    PERSON,
    PERSON,
    CITY,
    PRODUCT,
    PRODUCT,
    PRODUCT,
    BOOK,
    FILM,
    SONG,
    EVENT,
    ANIMAL,
    TRIP,
    JOB,
    RECIPE,
    COURSE,
    TICKET,
    HOUSE,
    FIRM,
    WEATHER,
    MATCH,
    CAR,
    PLANT,
)
