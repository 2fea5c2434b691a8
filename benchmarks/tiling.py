"""Fields per second through a network by tiles: ours against MONAI's sliding window, and in one pass.

Run ``python -m benchmarks.tiling`` where MONAI is installed (``pip install monai``; it is no dependency). A field of
the precipitation use case, 1308 x 1524, goes in tiles of 96 x 96 that overlap by half, with Gaussian weights, through
the same network. Rates are medians of rounds in which all take their turn. "none" in place of a network copies its
first input to all classes: what is left is the cost of the tiling.

Before, both are checked to give the same with the same weights. MONAI's own Gaussian is not quite ours, as it raises
weights below 0.001 to that; how much this changes is given too.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ai4sim.atomic import atomic_path
from ai4sim.networks import HalfUNet
from ai4sim.tiling import Tiling, one_pass_inference, tiled_inference, window_weights
from benchmarks.common import digits, machine, print_records, rates_in_turns
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.networks import ConditionedResUNet

SHAPE = 1308, 1524
CHANNELS, CLASSES = 11, 19
TILE = 96
FILTERS, DEPTH = 8, 2  # the domain is a multiple of 2**2, so that both lay out the same tiles
OUR_NAME, PEER_NAME, WHOLE_NAME = "ai4sim", "monai", "one_pass"


def make_network() -> Callable[[Tensor], Tensor]:
    """A small network that gives probabilities of classes."""
    network = HalfUNet(CHANNELS, CLASSES, num_filters=FILTERS, depth=DEPTH).eval()
    return lambda tiles: network(tiles).softmax(1)


def make_small_preset() -> Callable[[Tensor], Tensor]:
    """The network of the use case's demo."""
    network = ConditionedResUNet(CHANNELS, CLASSES).eval()
    conditions = torch.zeros(1, config.N_CONDITIONS)
    return lambda tiles: network(tiles, conditions.expand(len(tiles), -1)).softmax(1)


def no_network(tiles: Tensor) -> Tensor:
    """The first input, once for each class."""
    return tiles[:, :1].repeat(1, CLASSES, 1, 1)


def peer(call: Callable[[Tensor], Tensor], fields: Tensor, batch_size: int, **options: Any) -> Tensor:
    """MONAI's result, (class, row, column)."""
    infer = import_module("monai.inferers").sliding_window_inference
    with torch.inference_mode():
        result: Tensor = infer(fields[None], (TILE, TILE), batch_size, call, overlap=0.5, mode="gaussian", **options)
    return result[0]


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Over the root mean square of the peer's."""
    return float((ours - theirs).abs().max() / theirs.square().mean().sqrt())


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """With the network and without."""
    torch.manual_seed(0)
    fields = torch.randn(CHANNELS, *SHAPE)
    tiling = Tiling(SHAPE, tile=TILE, window="gaussian", multiple=2**DEPTH)
    weights = window_weights("gaussian", TILE).float()
    batch_size = options.batch_size
    records = []
    calls_by_name = {
        f"HalfUNet {FILTERS}": make_network(),
        "ConditionedResUNet": make_small_preset(),
        "none": no_network,
    }
    for name, call in calls_by_name.items():
        ours = tiled_inference(call, fields, tiling, batch_size=batch_size)
        same = largest_difference(ours, peer(call, fields, batch_size, roi_weight_map=torch.outer(weights, weights)))
        if not same < 1e-4:
            raise RuntimeError(f"{name}: the result differs from MONAI's by {same:.2e} of its RMS")
        default = largest_difference(ours, peer(call, fields, batch_size))
        calls = {
            OUR_NAME: partial(tiled_inference, call, fields, tiling, batch_size=batch_size),
            PEER_NAME: partial(peer, call, fields, batch_size),
            WHOLE_NAME: partial(one_pass_inference, call, fields, multiple=16),
        }
        rates = rates_in_turns(calls, 1, seconds=options.seconds, repeats=options.repeats)
        records.append(summarise(rates, name) | {"difference": digits(same), "difference_default": digits(default)})
    return records


def summarise(rates: Mapping[str, Sequence[float]], name: str) -> dict[str, Any]:
    """One record: medians, and the median of the rounds' ratios, in which what disturbs the machine cancels."""
    ratios = [own / other for own, other in zip(rates[OUR_NAME], rates[PEER_NAME], strict=True)]
    return {
        "network": name,
        **{f"{who}_per_second": digits(statistics.median(values)) for who, values in rates.items()},
        "ratio": digits(statistics.median(ratios)),
        "ratio_lowest": digits(min(ratios)),
        "ratio_highest": digits(max(ratios)),
    }


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a table."""
    columns = ("network", f"{OUR_NAME}_per_second", f"{PEER_NAME}_per_second", f"{WHOLE_NAME}_per_second", "ratio")
    print_records("fields per second; ratio above 1: faster than MONAI", columns, records)


def main(args: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8, help="tiles in one call")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/tiling.json"))
    options = parser.parse_args(args)
    if find_spec("monai") is None:
        print("tiling is skipped: MONAI, with which it compares, is not installed (pip install monai)")
        return
    torch.set_num_threads(options.threads)
    records = measure(options)
    show(records)
    result = {
        "benchmark": "tiling",
        "machine": machine("torch", "monai"),
        "threads": options.threads,
        "field": [CHANNELS, *SHAPE],
        "classes": CLASSES,
        "tile": TILE,
        "batch_size": options.batch_size,
        "results": records,
    }
    with atomic_path(options.output) as partial_file:
        partial_file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
