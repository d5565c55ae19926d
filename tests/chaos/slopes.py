"""How fast something grows, and how sure that is, by the estimator of Theil and Sen: odd points do not move it."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of the normal distribution: 95 % of it lie between -Z and Z.
_Z: Final = 1.96
FEWEST: Final = 6
"""Of fewer points nothing is said."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A slope with its 95 % confidence interval, in units of y for one unit of x."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def slope_of(points: Sequence[tuple[float, float]]) -> Slope:
    """Return the slope of points with different x.

    The median of the slopes of all pairs; the interval is Sen's, by the variance of Kendall's S with ties in y
    (P. K. Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", 1968). It takes the points for
    independent, so sum up points that follow each other closely first.

    Raises:
        ValueError: there are fewer than FEWEST points.
    """
    n = len(points)
    if n < FEWEST:
        raise ValueError(f"{n} points say nothing of a slope, {FEWEST} do")
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2))
    ties = Counter(y for _, y in points).values()
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    reach = _Z * math.sqrt(variance)
    low = max(math.floor((len(slopes) - reach) / 2), 0)
    high = min(math.ceil((len(slopes) + reach) / 2), len(slopes) - 1)
    return Slope(statistics.median(slopes), slopes[low], slopes[high])
