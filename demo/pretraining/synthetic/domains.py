"""Everything but places that a record may describe; a domain that stands twice comes twice as often."""

from .occasions import COURSE, EVENT, MATCH, TRIP, WEATHER
from .people import CITY, FIRM, HOUSE, JOB, PERSON, TICKET
from .things import ANIMAL, CAR, PLANT, PRODUCT, RECIPE
from .works import BOOK, FILM, SONG

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
