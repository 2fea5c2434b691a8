"""Fields of any size through a network: by overlapping tiles that are blended without seams, or in one pass."""

from ai4sim.tiling.inference import one_pass_inference, tiled_inference
from ai4sim.tiling.tiles import PADS, WINDOWS, Tiling, tile_starts, window_weights

__all__ = [
    "PADS",
    "WINDOWS",
    "Tiling",
    "one_pass_inference",
    "tile_starts",
    "tiled_inference",
    "window_weights",
]
