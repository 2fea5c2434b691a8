"""Names, thresholds, class edges and limits of probabilistic precipitation. No logic."""

from typing import Final

USE_CASE: Final = "precip_postproc/resunet_qpf"

# Hourly amounts, mm, whose exceedance is verified and shown.
THRESHOLDS: Final = (0.25, 1.0, 2.5, 5.0, 10.0, 25.0)
# Class k holds amounts from edge k up to edge k + 1, mm; class 0 is below the first edge. Radar analyses report no
# amount between 0 and 0.25 mm, so no edge is below that.
EDGES: Final = (
    0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.5, 15.0, 20.0, 25.0, 35.0, 50.0,
)  # fmt: skip
REFERENCE_EDGES: Final = tuple(0.25 * k for k in range(1, 101))
QUANTILES: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

# Analyses are multiples of 0.1 mm in single precision: an amount this little below an edge is on it.
GUARD: Final = 1e-4  # mm
CAP: Final = 75.0  # mm, forecasts above are set to it
MAX_OBSERVED: Final = 100.0  # mm, amounts from here on are not verified
# Analyses of less quality are not learnt from, or not verified against. A quality of 0.01 is not enough to learn from.
TRAINING_QUALITY: Final = 0.0101
VERIFICATION_QUALITY: Final = 0.5

# Levels of probability maps, the same for forecasts and baselines.
PROBABILITY_LEVELS: Final = (0.0, 0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 1.0)

# What conditions a network beside the fields, see conditions.py.
N_CONDITIONS: Final = 8
