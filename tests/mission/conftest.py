"""Every test draws the same numbers, whichever ran before it."""

import pytest

from tests.mission.rows import rng

START = rng.bit_generator.state


@pytest.fixture(autouse=True)
def from_the_start():
    rng.bit_generator.state = START
