"""Student's t and the normal law against scipy, closed forms, and far out in the tails."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats

from engine.analysis.student import normal_below, normal_quantiles, t_quantile, t_tail

DEGREES = [1, 2, 2.7, 3, 5, 8, 13.4, 30, 57, 100, 399, 400, 401, 1000, 20_978]


@pytest.mark.parametrize("degrees", DEGREES)
def test_the_tail_is_scipys(degrees: float) -> None:
    """Close in, where the two forms meet, and far out."""
    for t in [0.0, 1e-3, 0.1, 0.5, 1.0, 1.2, 1.3, 1.5, 1.73, 1.74, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0]:
        assert t_tail(t, degrees) == pytest.approx(scipy.special.stdtr(degrees, -t), rel=1e-11, abs=1e-290)
        assert t_tail(-t, degrees) == t_tail(t, degrees)


@pytest.mark.parametrize("t", [1e-9, 1e-6, 0.3, 1.0, 7.0, 1e3, 1e8])
def test_closed_forms_of_one_and_two_degrees(t: float) -> None:
    """Cauchy's law, and the algebraic one; the tail keeps its digits where 1 - F would have none."""
    assert t_tail(t, 1) == pytest.approx(math.atan2(1, t) / math.pi, rel=1e-13)
    root = math.sqrt(t * t + 2)
    assert t_tail(t, 2) == pytest.approx(1 / (root * (root + t)), rel=1e-13)


def test_the_ends_of_the_tail() -> None:
    """No evidence at all, and all of it."""
    assert t_tail(0.0, 4) == 0.5
    assert t_tail(math.inf, 4) == 0.0
    assert t_tail(1e200, 30) == 0.0
    assert math.isnan(t_tail(math.nan, 4))


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("level", [0.5, 0.6, 0.9, 0.975, 0.995])
def test_the_quantile_is_scipys(degrees: float, level: float) -> None:
    """And what it bounds is the level."""
    found = t_quantile(level, degrees)
    assert found == pytest.approx(scipy.stats.t.ppf(level, degrees), rel=1e-10, abs=1e-14)
    assert t_tail(found, degrees) == pytest.approx(1 - level, rel=1e-12)


def test_the_normal_law_is_scipys() -> None:
    """As arrays, with the ends and what is undefined."""
    z = np.linspace(-37, 9, 2001)
    np.testing.assert_allclose(normal_below(z), scipy.special.ndtr(z), rtol=1e-12)
    levels = np.arange(4001) / 4000
    np.testing.assert_allclose(normal_quantiles(levels), scipy.special.ndtri(levels), rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(normal_below(np.array([np.nan, -np.inf, np.inf])), [np.nan, 0, 1])


def test_no_analysis_loads_scipy() -> None:
    """It takes a fifth of the app's memory, and as long as the app to load."""
    code = (
        "import sys; from importlib import import_module; from simtui.analyses import ANALYSES\n"
        "from engine.analysis.association import associate; from engine.analysis.bootstrap import mean_interval\n"
        "from engine.analysis import comparison; import numpy as np\n"
        "for module, _ in ANALYSES.values(): import_module(f'engine.analysis.{module}')\n"
        "x = np.arange(12.0); associate(x, x**2 % 7, np.arange(12)); mean_interval(x[:, None])\n"
        "sys.exit('scipy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
