"""Training steps of the limited-area networks at 512 x 640 on a GPU: time and peak memory.

Run ``python -m benchmarks.lam_gpu`` where there is a CUDA device. One sample, 46 channels in and 21 out, forward and
backward, in float32, in bfloat16, and compiled in bfloat16.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ai4sim.atomic import atomic_path
from benchmarks.common import machine
from weather_forecast.lam.networks.base import Grid
from weather_forecast.lam.networks.registry import get_network

SHAPE = 512, 640
CHANNELS = 46, 21
SPACING = 2.5  # km
NETWORKS = ("HalfUNet", "UNet", "Segformer", "GraphLAM", "HiLAM")
MODES = ("float32", "bfloat16", "bfloat16 compiled")


def measure(name: str, mode: str, repeats: int) -> dict[str, Any]:
    """Median time of a step (ms) and peak memory (GiB) of one network."""
    y, x = torch.meshgrid(*(SPACING * torch.arange(n, dtype=torch.float64) for n in SHAPE), indexing="ij")
    torch.manual_seed(0)
    network = get_network(name)(*CHANNELS, SHAPE, grid=Grid(x, y)).cuda().train()
    size = (1, SHAPE[0] * SHAPE[1], CHANNELS[0]) if network.features_last else (1, CHANNELS[0], *SHAPE)
    fields = torch.randn(size, device="cuda")
    forward = torch.compile(network) if mode.endswith("compiled") else network

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=mode != "float32"):
            loss = forward(fields).float().square().mean()
        loss.backward()

    torch.cuda.reset_peak_memory_stats()
    times = []
    for number in range(repeats + 2):  # the first two warm up
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if number >= 2:
            times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.compiler.reset()
    return {
        "network": name,
        "mode": mode,
        "step_ms": round(1e3 * statistics.median(times), 2),
        "peak_gib": round(peak, 2),
    }


def main(args: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/lam_gpu.json"))
    options = parser.parse_args(args)
    if not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device")
    results: list[dict[str, Any]] = []
    result = {
        "benchmark": "lam_gpu",
        "machine": machine("numpy", "torch") | {"gpu": torch.cuda.get_device_name()},
        "grid": SHAPE,
        "results": results,
    }
    for mode in options.modes:
        for name in options.networks:
            results.append(measure(name, mode, options.repeats))
            print(results[-1], flush=True)
            with atomic_path(options.output) as partial:  # after each, for a lease of the machine may end
                partial.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
