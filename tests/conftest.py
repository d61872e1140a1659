"""Every test runs in strict mode: a rule that changes a gradient's shape fails."""

import pytest

import kilograd as kg
from kilograd.autograd import driver


@pytest.fixture(autouse=True)
def strict_and_seeded():
    driver.STRICT = True
    kg.manual_seed(0)
    yield
    driver.STRICT = False
