"""Training steps and forecasts per second of the limited-area grid networks against those of mfai.

Run ``python -m benchmarks.lam_grid`` where mfai is installed (``pip install mfai``; it is no dependency). Both sides
have the same weights and are checked to give the same output. A training step is a forward and a backward pass in
float32, a forecast a forward pass in evaluation mode. Inputs and weights lie in memory channel by channel, as mfai's
users have them, or point by point (channels last), as this use case has them. Rates are medians of rounds in which both
sides take their turn.

``--clock cpu`` counts the time of the process instead of the wall's, for machines on which others work too; it needs
one thread, as threads that wait for each other count as well.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ai4sim.atomic import atomic_path
from benchmarks.common import digits, machine, print_records
from weather_forecast.lam.networks.base import LamNetwork, make_settings
from weather_forecast.lam.networks.grid_networks import HalfUNet
from weather_forecast.lam.networks.segformer import Segformer

CHANNELS = (46, 21)  # of the reference configuration
GRIDS = (64, 128)
BATCH = 2
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
OUR_NAME, PEER_NAME = "ai4sim", "mfai"

NETWORKS: Mapping[str, tuple[type[LamNetwork], Mapping[str, Any]]] = {
    "HalfUNet 32": (HalfUNet, {"num_filters": 32}),
    "HalfUNet 64": (HalfUNet, {"num_filters": 64}),
    "Segformer": (Segformer, {}),
}
PEER_MODULES: Mapping[type[LamNetwork], str] = {
    HalfUNet: "mfai.pytorch.models.half_unet",
    Segformer: "mfai.pytorch.models.segformer",
}
LAYOUTS: Mapping[str, torch.memory_format] = {
    "channels first": torch.contiguous_format,
    "channels last": torch.channels_last,
}


def peer(kind: type[LamNetwork], settings: Mapping[str, Any], grid: int) -> nn.Module:
    """The network of mfai with the same settings, with its own random weights."""
    module = import_module(PEER_MODULES[kind])
    found = getattr(module, kind.__name__)
    network: nn.Module = found(*CHANNELS, (grid, grid), found.settings_kls(**settings))
    return network


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give a network the weights of another one that has them in the same order."""
    values, places = source.state_dict().values(), target.state_dict().values()
    for value, place in zip(values, places, strict=True):
        # patches mapped by a 1 x 1 convolution there are a strided convolution here
        place.copy_(value.reshape(place.shape))


def difference(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """Largest difference of the outputs over the root mean square of the peer's, in training mode."""
    with torch.no_grad():
        own, other = (network.train()(x).double() for network in (ours, theirs))
    return float((own - other).abs().max() / other.square().mean().sqrt())


def training_step(network: nn.Module, x: Tensor) -> Callable[[], object]:
    """A call that goes forward and backward once."""

    def call() -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        network(x).square().mean().backward()

    return call


def forecast(network: nn.Module, x: Tensor) -> Callable[[], object]:
    """A call that goes forward once."""

    @torch.inference_mode()
    def call() -> object:
        return network.eval()(x)

    return call


def rates_in_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Calls per second, one call and one rate per round and name, after two rounds that do not count."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 2):
        for name, call in calls.items():
            start = clock()
            call()
            if number >= 2:
                rates[name].append(1.0 / (clock() - start))
    return rates


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All networks on all grids in both layouts."""
    records = []
    for name, (kind, settings) in NETWORKS.items():
        for grid in GRIDS:
            torch.manual_seed(0)
            theirs = peer(kind, settings, grid)
            ours = kind(*CHANNELS, (grid, grid), make_settings(kind.settings_kls, settings))
            copy_weights(theirs, ours)
            x = torch.randn(BATCH, CHANNELS[0], grid, grid)
            error = difference(ours, theirs, x)
            if not error < 1e-3:
                raise RuntimeError(f"{name} on {grid} x {grid} differs from mfai's by {error:.2e} of its RMS")
            for layout, memory in LAYOUTS.items():
                x = x.to(memory_format=memory)
                pair = {OUR_NAME: ours, PEER_NAME: theirs}
                for network in pair.values():
                    to: Callable[..., nn.Module] = network.to  # its annotation forgets memory_format
                    to(memory_format=memory)
                for task, make in (("training step", training_step), ("forecast", forecast)):
                    calls = {who: make(network, x) for who, network in pair.items()}
                    rates = rates_in_turns(calls, options.repeats, CLOCKS[options.clock])
                    records.append(summarise(rates, name, grid, layout, task, error))
    return records


def summarise(
    rates: Mapping[str, Sequence[float]], name: str, grid: int, layout: str, task: str, error: float
) -> dict[str, Any]:
    """One record: medians, and the median of the rounds' ratios, in which what disturbs the machine cancels."""
    ratios = [own / other for own, other in zip(rates[OUR_NAME], rates[PEER_NAME], strict=True)]
    return {
        "network": name,
        "grid": [grid, grid],
        "batch": BATCH,
        "layout": layout,
        "task": task,
        **{f"{who}_per_second": digits(statistics.median(values), 4) for who, values in rates.items()},
        "ratio": digits(statistics.median(ratios)),
        "ratio_lowest": digits(min(ratios)),
        "ratio_highest": digits(max(ratios)),
        "difference": digits(error, 2),
    }


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a table."""
    columns = ("network", "grid", "layout", "task", f"{OUR_NAME}_per_second", f"{PEER_NAME}_per_second", "ratio")
    print_records("per second; ratio above 1: faster than mfai", columns, records)


def main(args: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/lam_grid.json"))
    options = parser.parse_args(args)
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu needs --threads 1")
    if find_spec("mfai") is None:
        print("lam_grid is skipped: mfai, with which it compares, is not installed (pip install mfai)")
        return
    torch.set_num_threads(options.threads)
    records = measure(options)
    show(records)
    result = {
        "benchmark": "lam_grid",
        "machine": machine("torch", "mfai"),
        "threads": options.threads,
        "clock": options.clock,
        "results": records,
    }
    with atomic_path(options.output) as partial_file:
        partial_file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
