"""How many values a property is tried with: few in `make test`, many in `make soak`."""

import pytest

COUNTS = [40, pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(120)])]
"""For a parameter of the test, whose own function has the strategies and takes it as `max_examples`."""
