"""From a Gaussian latent to hourly precipitation: most values are cut off at zero, the tail is long."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from precip_postproc.resunet_qpf.periodic import Array


@dataclass(frozen=True)
class AmountLaw:
    """Precipitation of a latent z: scale (z - dry)^power above ``dry``, else zero.

    Args:
        scale: mm.
        dry: largest latent without precipitation.
        power: of the excess.
    """

    scale: float
    dry: float
    power: float

    def amount(self, latent: Array) -> Array:
        """Hourly precipitation, mm."""
        amount: Array = self.scale * np.maximum(latent - self.dry, 0) ** self.power
        return amount

    def latent(self, amount: ArrayLike) -> Array:
        """The latent whose precipitation is ``amount``, mm, not negative."""
        return self.dry + (np.asarray(amount, float) / self.scale) ** (1 / self.power)


TRUTH = AmountLaw(scale=2.4, dry=1.25, power=2.1)
# more drizzle, lighter tail
MODEL = AmountLaw(scale=1.9, dry=1.03, power=1.75)
