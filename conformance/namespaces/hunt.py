"""Looking for wrong answers with Hypothesis, in two passes with one seed.

The first pass asks as many questions as it is given, keeps every answer, and sorts what is wrong by the requirement
that is to blame. Then, for each of these, the same search is made again from the same seed: every answer up to the
first wrong one is known already, and from there Hypothesis shrinks, asking only what has not been asked yet. So one
hunt can blame several requirements, each with its smallest counterexample, and no question is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

#: Questions that shrinking may add to those of a search, for each requirement that is blamed.
SHRINKING = 300


@dataclass(frozen=True)
class Finding(Generic[T]):
    """A wrong answer."""

    #: The requirement that it breaks.
    blamed: str
    #: What was asked.
    question: T
    expected: str
    seen: str
    exchanges: tuple[Exchange, ...] = ()


class _Found(Exception):
    """A wrong answer of the sort that is being shrunk."""


@dataclass
class Hunt(Generic[T]):
    """A search for wrong answers; how it ends depends on the seed and on the answers alone."""

    seed: int
    #: How many questions the first pass draws.
    examples: int
    #: The smallest wrong answer for each requirement that is to blame.
    findings: dict[str, Finding[T]] = field(default_factory=dict)
    #: Why the search was given up, if it was.
    error: Exception | None = None
    _answers: dict[object, Finding[T] | None] = field(default_factory=dict)
    _left: int = 0

    def search(
        self,
        questions: SearchStrategy[T],
        ask: Callable[[T], Finding[T] | None],
        key: Callable[[T], object],
        first: Sequence[T] = (),
        shrunk: Container[str] | None = None,
    ) -> None:
        """Ask and shrink.

        :param ask: asks the homeserver and judges; what it raises ends the search and is raised again.
        :param key: what makes two questions the same.
        :param first: what is asked before anything is drawn, counted among the examples; the simplest come first.
        :param shrunk: the requirements whose wrong answers are worth shrinking; None: all.
        """
        blamed: dict[str, Finding[T]] = {}

        def look(question: T) -> Finding[T] | None:
            known = key(question)
            if known not in self._answers:
                if self.error is not None or self._left <= 0:
                    return None
                self._left -= 1
                try:
                    self._answers[known] = ask(question)
                except Exception as error:
                    # Hypothesis would take it for a counterexample and try again and again.
                    self.error = error
                    return None
            return self._answers[known]

        def collect(question: T) -> None:
            finding = look(question)
            if finding is not None:
                blamed.setdefault(finding.blamed, finding)

        self._left = self.examples
        for question in first:
            collect(question)
        if self.error is None:
            self.play(questions, collect)
        for each in sorted(blamed) if self.error is None else ():
            self._left = SHRINKING
            smallest = self._shrunk(questions, look, each) if shrunk is None or each in shrunk else None
            self.findings[each] = blamed[each] if smallest is None else smallest
        if self.error is not None:
            raise self.error

    def _shrunk(
        self, questions: SearchStrategy[T], look: Callable[[T], Finding[T] | None], blamed: str
    ) -> Finding[T] | None:
        """The smallest example among what is drawn; None when only what is asked first shows it."""
        smallest: list[Finding[T]] = []

        def again(question: T) -> None:
            finding = look(question)
            if finding is not None and finding.blamed == blamed:
                smallest[:] = [finding]
                raise _Found

        with suppress(_Found):  # the last thing Hypothesis does is to show its smallest example once more
            self.play(questions, again)
        return smallest[0] if smallest else None

    def play(self, questions: SearchStrategy[T], test: Callable[[T], object]) -> None:
        """Call a function with what Hypothesis draws: always the same, as long as the function does the same."""
        from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

        @seed(self.seed)
        @settings(
            max_examples=self.examples,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        @given(questions)
        def play(question: T) -> None:
            test(question)

        play()
