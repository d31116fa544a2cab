"""The budget of one client: what is charged is given back, and nothing is charged over the bound."""

import pytest
from fanwire.budget import Budgets
from fanwire.errors import LimitReached
from fanwire.options import check_options
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(0, 500)), st.integers(0, 1000))
def test_nothing_is_charged_over_the_bound_and_all_is_given_back(charges: list[int], bound: int) -> None:
    budgets = Budgets(bound)
    budget, other = budgets.open(), budgets.open()
    charged = [bytes for bytes in charges if budget.charge(bytes)]
    assert budget.bytes == sum(charged) <= bound
    assert other.charge(bound)  # another client's is its own
    for bytes in charged:
        budget.release(bytes)
    assert budget.bytes == 0
    assert not budgets.refused


def test_what_cannot_wait_is_refused_with_the_bounds_name_and_counted() -> None:
    budgets = Budgets(100)
    budget = budgets.open()
    budget.require(100)
    with pytest.raises(LimitReached, match=r"client_bytes_max: 101 is over the bound of 100"):
        budget.require(1)
    assert budget.bytes == 100
    assert budgets.refused == {"client_bytes_max": 1}


def test_the_bound_is_checked() -> None:
    with pytest.raises(ValueError, match=r"client_bytes_max must be a whole number of bytes, 65,536 to .*, not 1000"):
        check_options({"client_bytes_max": 1000})
