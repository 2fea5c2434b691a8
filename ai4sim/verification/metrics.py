"""Which way each metric points: the one place that knows."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class MetricInfo:
    """What a metric's numbers mean.

    Attributes:
        better: `lower`, `higher`, or `closer` (to the perfect value, from either side).
        perfect: value of a perfect prediction; NaN if there is none.
    """

    better: Literal["lower", "higher", "closer"]
    perfect: float

    def badness(self, value: float, lower: float, upper: float) -> tuple[float, float, float]:
        """A score and its bounds turned so that lower is better; NaN bounds stay NaN."""
        if self.better == "lower":
            return value, lower, upper
        if self.better == "higher":
            return -value, -upper, -lower
        distances = sorted((abs(lower - self.perfect), abs(upper - self.perfect)))
        nearest = 0.0 if lower <= self.perfect <= upper else distances[0]
        return abs(value - self.perfect), nearest, distances[1]


# A longer name takes the entry of its ending: mean_level_r2 that of r2.
METRICS: Final[Mapping[str, MetricInfo]] = {
    "rmse": MetricInfo("lower", 0.0),
    "mse": MetricInfo("lower", 0.0),
    "mae": MetricInfo("lower", 0.0),
    "bias": MetricInfo("closer", 0.0),
    "r2": MetricInfo("higher", 1.0),
    "correlation": MetricInfo("higher", 1.0),
    "std_ratio": MetricInfo("closer", 1.0),
    "acc": MetricInfo("higher", 1.0),
    "ssim": MetricInfo("higher", 1.0),
    "psnr": MetricInfo("higher", math.inf),
    "crps": MetricInfo("lower", 0.0),
    "brier": MetricInfo("lower", 0.0),
    "reliability": MetricInfo("lower", 0.0),
    "miscalibration": MetricInfo("lower", 0.0),
    "discrimination": MetricInfo("higher", math.nan),
    "resolution": MetricInfo("higher", math.nan),
    "rps": MetricInfo("lower", 0.0),
    # those of the observations, or neither good nor bad in themselves, have no perfect value, and nobody is best
    "uncertainty": MetricInfo("closer", math.nan),
    "base_rate": MetricInfo("closer", math.nan),
    "mean_forecast": MetricInfo("closer", math.nan),
    "within_bin_variance": MetricInfo("lower", 0.0),
    "within_bin_covariance": MetricInfo("higher", math.nan),
    "sharpness": MetricInfo("higher", math.nan),
    "roc_area": MetricInfo("higher", 1.0),
    "ssr": MetricInfo("closer", 1.0),
    "spread": MetricInfo("closer", math.nan),
    "std_dev": MetricInfo("closer", math.nan),
    "chi2": MetricInfo("lower", 1.0),
    "fraction": MetricInfo("closer", math.nan),
    "outlier_ratio": MetricInfo("closer", 1.0),
    "energy_score": MetricInfo("lower", 0.0),
    "variogram_score": MetricInfo("lower", 0.0),
    "quantile": MetricInfo("closer", math.nan),
    "quantile_ratio": MetricInfo("closer", 1.0),
    "fss": MetricInfo("higher", 1.0),
    "csi": MetricInfo("higher", 1.0),
    "frequency_bias": MetricInfo("closer", 1.0),
    "lsd": MetricInfo("lower", 0.0),
    "power_ratio": MetricInfo("closer", 1.0),
    "area_ratio": MetricInfo("closer", 1.0),
    "residual": MetricInfo("lower", 0.0),
    "error": MetricInfo("lower", 0.0),
    "seconds": MetricInfo("lower", 0.0),
    "per_second": MetricInfo("higher", math.inf),
}
_TITLES: Final[Mapping[str, str]] = {
    "r2": "R²",
    "brier": "Brier score",
    "roc": "ROC",
    "chi2": "χ² per degree of freedom",
    **{
        name: name.upper()
        for name in ("rmse", "mse", "mae", "acc", "ssim", "psnr", "crps", "rps", "csi", "fss", "lsd", "ssr")
    },
}
MINUS: Final = "\u2212"
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SKILL: Final = MetricInfo("higher", 1.0)


def metric_info(metric: str) -> MetricInfo:
    """Direction and perfect value of a metric.

    Args:
        metric: a name of `METRICS`, one that ends in ``_<such a name>``, or a skill
            ``<metric>_skill_<baseline>``.

    Returns:
        What is known of it.

    Raises:
        ValueError: the name is unknown.
    """
    head, skill, _ = metric.partition("_skill_")
    if skill:
        metric_info(head)
        return _SKILL
    words = metric.split("_")
    for start in range(len(words)):
        info = METRICS.get("_".join(words[start:]))
        if info is not None:
            return info
    raise ValueError(f"unknown metric {metric!r}: a name must be, or end in, one of {', '.join(METRICS)}")


def skill_name(metric: str, baseline: str) -> str:
    """Name of the skill of a metric against a baseline, such as ``mse_skill_persistence``."""
    return f"{metric}_skill_{baseline}"


def metric_title(metric: str) -> str:
    """A metric's name for the eye: ``mean_level_r2`` becomes ``mean level R²``."""
    metric, skill, baseline = metric.partition("_skill_")
    if skill:
        return f"{metric_title(metric)} skill against {baseline}"
    return " ".join(_TITLES.get(word, word) for word in metric.split("_"))


def format_units(units: str) -> str:
    """Units for the eye, with raised exponents: ``m s-1 day-1`` becomes ``m s⁻¹ day⁻¹``."""
    return re.sub(r"(?<=[A-Za-z°)])-?\d+", lambda exponent: exponent[0].translate(_RAISED), units)


def column_title(metric: str, units: str) -> str:
    """Heading of a column or axis: the metric with its units, if it has any."""
    return metric if units in ("", "1") else f"{metric} [{units}]"


def format_number(value: float, width: float | None = None) -> str:
    """A number to the digits that matter: two of the width of its interval, else four of its own.

    Args:
        value: the number.
        width: width of its interval.

    Returns:
        Fixed notation for numbers of a common size, else scientific.
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = max(abs(value), width or 0.0)
    if size == 0.0:
        return "0"
    if not 1e-3 <= size < 1e6:
        return f"{value:.2e}"
    digits = 1 - math.floor(math.log10(width)) if width else 3 - math.floor(math.log10(size))
    text = f"{value:.{min(max(digits, 0), 6)}f}"
    return text.lstrip("-") if float(text) == 0.0 else text
