"""The networks of the papers, with their numbers of channels and parameters.

Those whose name ends in ``_compat`` are the reference's to the last weight. The others differ on purpose: a denoiser
sees the level of noise, which the reference's unpatched ones do not (their embedding is ``zero``), and what is learnt
of places in a large domain has a few points only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from downscaling.corrdiff.networks.positioned import PositionedUNet
from downscaling.corrdiff.networks.song_unet import SongUNet

MINI: Final[Mapping[str, Any]] = {
    "model_channels": 64,
    "channel_mult": (1, 2, 2),
    "attn_resolutions": (16,),
    "resolution": 64,
}
TAIWAN: Final[Mapping[str, Any]] = {"resolution": 448}
# its rows, halved, are never 28: the reference asks for attention at 28 and has none outside the bottleneck
CONUS: Final[Mapping[str, Any]] = {"resolution": (1056, 1792), "attn_resolutions": ()}


@dataclass(frozen=True)
class Preset:
    """One network.

    Attributes:
        in_channels: of the maps that are given, without positions and lead times.
        out_channels: of the output.
        domain: rows and columns.
        parameters: millions of them.
        patch: rows and columns that the network is trained on; the domain where there is none.
        unet: settings of `SongUNet`.
        around: settings of `PositionedUNet`.
    """

    in_channels: int
    out_channels: int
    domain: tuple[int, int]
    parameters: float
    unet: Mapping[str, Any]
    around: Mapping[str, Any]
    patch: tuple[int, int] | None = None

    def make(self, **changes: Any) -> PositionedUNet:
        """The network, with random weights.

        Args:
            changes: other settings of `SongUNet`.
        """
        unet = partial(SongUNet, **{**self.unet, **changes})
        return PositionedUNet(self.in_channels, self.out_channels, domain=self.domain, unet=unet, **self.around)


_mini_regression = Preset(2 + 28, 2, (64, 64), 10.861, {**MINI, "embedding_type": "zero"}, {})
# the mean is among the conditions
_mini_diffusion = Preset(2 + 2 + 28, 2, (64, 64), 10.945, MINI, {})
_taiwan_regression = Preset(4 + 12, 4, (448, 448), 79.674, {**TAIWAN, "embedding_type": "zero"}, {})
_taiwan_patched = Preset(
    # noisy, mean and inputs, and an overview of the inputs
    4 + (4 + 12) + 12,
    4,
    (448, 448),
    100.2,
    TAIWAN,
    {"position": "learnable", "position_channels": 100},
    patch=(448, 448),
)
_conus_regression = Preset(
    9 + 37,
    9,
    (1056, 1792),
    146.5,
    {**CONUS, "embedding_type": "zero"},
    {"lead_steps": 9, "lead_channels": 4, "probability_channels": (4, 5, 6, 7, 8)},
)
_conus_diffusion = Preset(
    # noisy, mean, inputs, and an overview of the inputs
    9 + 9 + 37 + 37,
    9,
    (1056, 1792),
    608.8,
    CONUS,
    {"position": "learnable", "position_channels": 100, "lead_steps": 9, "lead_channels": 20},
    patch=(448, 448),
)
_COARSE: Final = {"embed_resolution": (66, 112), "lead_embedding": True}

PRESETS: Final[Mapping[str, Preset]] = {
    "hrrr_mini_regression": _mini_regression,
    "hrrr_mini_regression_4": replace(_mini_regression, in_channels=4 + 28, out_channels=4, parameters=10.863),
    "hrrr_mini_diffusion": _mini_diffusion,
    "hrrr_mini_diffusion_compat": replace(_mini_diffusion, parameters=10.862, unet={**MINI, "embedding_type": "zero"}),
    "taiwan_regression": _taiwan_regression,
    "taiwan_diffusion": replace(_taiwan_regression, unet=TAIWAN, parameters=80.003),
    "taiwan_diffusion_compat": _taiwan_regression,
    "taiwan_patched_diffusion": _taiwan_patched,
    "gefs_hrrr_regression_compat": _conus_regression,
    "gefs_hrrr_regression": replace(
        _conus_regression, parameters=78.93, around={**_conus_regression.around, **_COARSE}
    ),
    "gefs_hrrr_diffusion_compat": _conus_diffusion,
    "gefs_hrrr_diffusion": replace(_conus_diffusion, parameters=81.2, around={**_conus_diffusion.around, **_COARSE}),
}
"""By name: the reference's configurations, and where they are not the same, ours."""
