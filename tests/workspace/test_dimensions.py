"""Names of scores and embeddings: what is parsed is what is written, and nonsense is refused."""

import pytest

from foleypref.workspace.dimensions import Dimension, embeddings_key, scorer_and_version, scorers_of


def test_a_dimension_is_written_as_it_was_parsed() -> None:
    parsed = Dimension.parse("my_package.mine:Loudness/level")
    assert parsed == Dimension("my_package.mine:Loudness", "level")
    assert str(parsed) == "my_package.mine:Loudness/level"


@pytest.mark.parametrize("text", ["", "clap", "/similarity", "clap/"])
def test_half_a_dimension_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ValueError, match=f"scorer/name.*found {text!r}"):
        Dimension.parse(text)


def test_a_scorers_version_may_hold_any_character_but_the_sign() -> None:
    assert embeddings_key("pesq", "0.0.4-wb") == "pesq@0.0.4-wb"
    assert scorer_and_version("pesq@0.0.4-wb") == ("pesq", "0.0.4-wb")
    assert scorer_and_version("some other feature")[0] == ""


def test_scorers_come_once_each_in_order() -> None:
    assert scorers_of(["b/x", "a/x", "b/y"]) == ("b", "a")
