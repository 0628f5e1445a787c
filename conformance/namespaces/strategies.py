"""What Hypothesis draws: a cell of namespaces, an ID near it, and who asks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from conformance.namespaces.cells import Cell
from conformance.namespaces.ids import OPEN, Pick, near, telling


@dataclass(frozen=True)
class Probe:
    """A question to a homeserver."""

    #: The cell that the ID was drawn for; all entries of the run judge it.
    cell: Cell
    identifier: str
    #: The code of the appservice that asks; empty: a human.
    asker: str = ""


#: Questions of each sort that is left open: enough for the report.
_OF_OPEN = 4

_BIT = st.booleans()


def picking(draw: st.DrawFn) -> Pick:
    """A source of numbers that Hypothesis shrinks."""

    def pick(low: int, high: int) -> int:
        # Bit by bit: for Hypothesis's integers it looks for constants in all modules of the project around it, which
        # takes half a second, leaves files behind, and makes what is drawn depend on where the suite is installed.
        number = 0
        for _ in range((high - low).bit_length()):
            number = number << 1 | draw(_BIT)
        return low + number % (high - low + 1)

    return pick


@st.composite
def probes(draw: st.DrawFn, cells: Sequence[Cell], server_name: str, askers: Sequence[str] = ("",)) -> Probe:
    """Questions about cells, which are given with the simplest first."""
    pick = picking(draw)
    cell = cells[pick(0, len(cells) - 1)]
    asker = askers[pick(0, len(askers) - 1)]
    regex = cell.regexes[pick(0, len(cell.regexes) - 1)]
    return Probe(cell, near(cell.kind, regex, server_name, pick), asker)


def sweep(cells: Sequence[Cell], server_name: str, seed: int, askers: Sequence[str] = ("",)) -> Iterator[Probe]:
    """The questions that tell most, of every sort in turn, so that a few of them cover all sorts. Which cells, the seed
    says, and those first where one entry alone decides. What is only drawn may miss, for a whole run, how a homeserver
    treats the last of a range or a bound.
    """
    rng = random.Random(f"{seed} sweep")
    sorts: dict[str, list[Probe]] = {}
    for cell in sorted(rng.sample(cells, len(cells)), key=lambda cell: cell.obscurity):
        for entry, regex in zip(cell.entries, cell.regexes, strict=True):
            for sort, identifier in telling(cell.kind, regex, server_name).items():
                layered = cell.obscurity == 1 and entry.exclusive and sort == "the shortest"
                questions = sorts.setdefault("beside an open entry" if layered else sort, [])
                if sort not in OPEN or len(questions) < _OF_OPEN:
                    questions.append(Probe(cell, identifier, rng.choice(askers)))
    for row in itertools.zip_longest(*sorts.values()):
        yield from (probe for probe in row if probe is not None)
