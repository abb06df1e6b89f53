"""What a request and a worker cost at most, wherever this runs: as ratios of CPU time, and MiB."""

import pytest

from benchmarks import overhead


@pytest.mark.drill
def test_costs_stay_within_their_budgets():
    budgets = overhead.check()

    assert [str(budget) for budget in budgets if not budget.is_kept] == []
