"""Scores of labelled arrays, their confidence intervals, and the scorecard."""

from ai4sim.verification.bootstrap import (
    Interval,
    Metric,
    block_bootstrap,
    block_labels,
    bootstrap_difference,
    bootstrap_skill,
)
from ai4sim.verification.comparison import Cell, Row, compare
from ai4sim.verification.deterministic import (
    bias,
    correlation,
    mae,
    mean,
    mse,
    r2,
    rmse,
    std_ratio,
    variation,
)
from ai4sim.verification.metrics import METRICS, MetricInfo, metric_info, skill_name
from ai4sim.verification.scorecard import COLUMNS, Role, Scorecard, Selection
from ai4sim.verification.sums import error_statistics, merge, pool

__all__ = [
    "COLUMNS",
    "METRICS",
    "Cell",
    "Interval",
    "Metric",
    "MetricInfo",
    "Role",
    "Row",
    "Scorecard",
    "Selection",
    "bias",
    "block_bootstrap",
    "block_labels",
    "bootstrap_difference",
    "bootstrap_skill",
    "compare",
    "correlation",
    "error_statistics",
    "mae",
    "mean",
    "merge",
    "metric_info",
    "mse",
    "pool",
    "r2",
    "rmse",
    "skill_name",
    "std_ratio",
    "variation",
]
