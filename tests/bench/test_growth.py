"""The fit of growth's exponents on costs that are known."""
from __future__ import annotations

import numpy as np
import pytest

from bench import growth


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_a_power_is_found(exponent: float) -> None:
    sizes = [1, 2, 4, 8, 16]
    found = growth.fit(sizes, [0.03 * n ** exponent for n in sizes])
    assert found.exponent == pytest.approx(exponent, abs=1e-9) and found.error == pytest.approx(0, abs=1e-9)
    assert found.last == pytest.approx(exponent, abs=1e-9)


def test_noise_widens_and_a_late_bend_shows() -> None:
    draw = np.random.default_rng(0)
    sizes = [1, 2, 4, 8, 16, 32]
    found = growth.fit(sizes, [n * float(np.exp(0.05 * draw.standard_normal())) for n in sizes])
    assert found.exponent == pytest.approx(1, abs=0.1) and 0.005 < found.error < 0.05
    bent = growth.fit(sizes, [1 + 0.001 * n ** 3 for n in sizes])
    assert bent.last > 2.5 > bent.exponent


def test_too_few_sizes_are_refused() -> None:
    for sizes in ([1, 2], [1, 1, 2]):
        with pytest.raises(ValueError, match="three different"):
            growth.fit(sizes, [1.0] * len(sizes))


def test_the_least_of_turns_is_taken_after_one_that_warms_up() -> None:
    now, calls = 0.0, 0

    def prepared(size: int):
        def work() -> None:
            nonlocal now, calls
            calls += 1
            now += size * (10 if calls % 3 else 1)

        return work

    assert growth.timed(prepared, [1, 2, 4, 8], 6, clock=lambda: now) == [1, 2, 4, 8]
    assert calls == 4 * 7
