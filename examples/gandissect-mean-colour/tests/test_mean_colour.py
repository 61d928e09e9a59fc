import pytest
from gandissect_mean_colour import MeanColour

from gandissect.testing import check_analyzer, tiny_session


def test_it_keeps_the_promises_of_an_analyzer() -> None:
    check_analyzer(MeanColour)


def test_the_mean_is_that_of_the_samples() -> None:
    session = tiny_session(n=32)
    section = next(MeanColour().run(session))
    assert section.blocks[0].rows[0] == pytest.approx(session.images().mean((0, 2, 3)).tolist())
