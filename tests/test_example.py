"""The worked example: its data, and what the command tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.cli import main
from conformance.example import script_of

README = Path(__file__).parents[1] / "README.md"


def test_the_command_plays_all_five_steps(capsys: pytest.CaptureFixture[str]) -> None:
    for spec in ("draft-004", "draft-001"):
        assert main(["example", "--spec", spec]) == 0
        told = capsys.readouterr().out
        for number in range(1, 6):
            assert f"\n{number}. " in f"\n{told}"
        assert "WRONG" not in told
        for secret in ("hq-as-", "syt-"):
            assert secret not in told
    assert '"room_id": "!irc.freenode.net/#matrix:hsdomain.com"' in told


def test_the_two_examples_are_about_the_same() -> None:
    later, earlier = script_of("draft-004"), script_of("draft-001")
    assert later.said == earlier.said
    assert later.answers is None
    assert earlier.renamed("x").answer_about("user", "@bob:x") == {"profile": {"display_name": "Bob-x"}}
    (event,) = earlier.answer_about("alias", "@bob:x")["events"]
    assert (event["user_id"], event["content"]["body"]) == ("@bob:x", "hello?")


def test_the_readme_shows_the_steps_as_the_command_tells_them(capsys: pytest.CaptureFixture[str]) -> None:
    main(["example"])
    titles = [line for line in capsys.readouterr().out.splitlines() if line[:2] in ("1.", "2.", "3.", "4.", "5.")]
    text = README.read_text(encoding="utf-8")
    for title in titles:
        assert title in text
