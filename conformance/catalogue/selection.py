"""Which requirements a list such as ``TXN,RETRY-05,must`` means."""

from __future__ import annotations

import difflib

from conformance.catalogue import Catalogue, Level

_LEVELS = {level.upper(): level for level in Level}


def select(words: str, catalogue: Catalogue) -> frozenset[str]:
    """The ids that a comma-separated list of ids, areas and levels selects; upper and lower case do not matter.

    Ids and areas add up. Levels add up too, and restrict the rest: ``TXN,RETRY-05,must`` is every MUST of TXN, and
    RETRY-05 if it is one. A list of levels alone takes them from the whole catalogue.

    :raises ValueError: a word is neither an id nor an area nor a level, or the list is empty.
    """
    named: set[str] = set()
    levels: set[Level] = set()
    areas = {area.name: [requirement.id for requirement in area.requirements] for area in catalogue.areas}
    found = [word.strip() for word in words.split(",") if word.strip()]
    if not found:
        raise ValueError("the list of requirements is empty: expected ids, areas or levels, such as TXN,RETRY-05,must")
    for word in found:
        key = word.upper()
        if key in _LEVELS:
            levels.add(_LEVELS[key])
        elif key in areas:
            named.update(areas[key])
        elif key in catalogue:
            named.add(key)
        else:
            raise ValueError(_unknown(word, [*_LEVELS, *areas, *catalogue.ids()]))
    if not named:
        named.update(catalogue.ids())
    if levels:
        named = {one for one in named if catalogue[one].level in levels}
    return frozenset(named)


def _unknown(word: str, known: list[str]) -> str:
    closest = difflib.get_close_matches(word.upper(), known, n=1)
    if not closest:
        return f"{word!r} is no requirement, area or level: as-conformance requirements lists them"
    meant = closest[0].lower() if closest[0] in _LEVELS else closest[0]
    return f"{word!r} is no requirement, area or level: did you mean {meant}?"
