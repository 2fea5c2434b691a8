"""Names and constants of the use case. No logic."""

from typing import Final

USE_CASE: Final = "downscaling/corrdiff"

SIGMA_DATA: Final = 0.5
"""Standard deviation of what the diffusion learns (Karras et al. 2022, Table 1)."""
