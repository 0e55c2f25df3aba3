"""Flags of settings whose parts have an abstract base: help, swapping by name, and refusals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

import pytest

from foleypref.settings.flags import parse, parts_of, swap_parts
from foleypref.settings.parts import FromDrawer, Part, Settings, part_help


class Shape(Part, ABC):
    """A drawer's base, as each drawer has one."""

    @abstractmethod
    def area(self) -> float:
        """In square metres."""


class Square(Shape):
    side: float = 2.0  # in metres

    def area(self) -> float:
        return self.side**2


class Disc(Shape):
    radius: float = 1.0

    def area(self) -> float:
        return 3.0 * self.radius**2


ShapePart = Annotated[Shape, FromDrawer("metrics"), part_help("metrics")]


class Garden(Settings):
    """A bed, and perhaps more."""

    bed: ShapePart = Square()
    pond: ShapePart | None = None
    stones: tuple[ShapePart, ...] = ()


DISC, SQUARE = f"{__name__}:Disc", f"{__name__}:Square"


def parsed(*args: str) -> Garden:
    return parse(Settings, args, "garden", settings=Garden()).settings  # type: ignore[attr-defined]


def test_parts_with_an_abstract_base_are_swapped_by_name() -> None:
    garden = parsed(
        "--bed", DISC, "--bed.radius", "3", "--pond", f"{__name__}:Square", "--stones", DISC, DISC
    )
    assert garden.bed == Disc(radius=3)
    assert (garden.pond, garden.stones) == (Square(), (Disc(), Disc()))
    assert parsed("--bed.name", DISC).bed == Disc()
    assert parsed("--bed.side", "5").bed == Square(side=5)
    assert parsed("--pond", DISC, "--pond", "none").pond is None


def test_what_is_left_is_for_the_other_flags() -> None:
    garden, rest = swap_parts(Garden(), ["ws", "--bed", DISC, "--bed.radius=2", "--other", "x"])
    assert (garden.bed, rest) == (Disc(), ["ws", "--bed.radius=2", "--other", "x"])


def test_help_shows_the_parts_and_their_own_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    text = capsys.readouterr().out
    assert dict(parts_of(Garden())) == {"bed": SQUARE, "pond": "none", "stones": "none"}
    assert f"--bed NAME (now {SQUARE})" in " ".join(text.split())
    assert text.partition("options")[2].count("--bed.side FLOAT") == 1
    assert "in metres (default: 2.0)" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--bed", "no.such:Thing"], "--bed: cannot import no.such:Thing"),
        (["--bed", f"{__name__}:Shape"], "--bed: .*is abstract"),
        (["--bed", DISC, "--bed.side", "3"], "--bed.side"),
        (["--bed.side", "wide"], "--bed.side.*'wide'"),
        (["--bed"], "--bed wants the name of a part"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_flag(args: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parsed(*args)
    assert "\n" not in str(caught.value)
