"""Columns per second of the gravity-wave networks against the physical scheme that they replace.

Run ``python -m benchmarks.gwd``. All networks are measured as eager modules in inference mode, in float32 and with
their matrix products in bfloat16, as ``torch.export`` programs and in ONNX Runtime; the scheme in NumPy and in torch.
Everything runs on all cores, or those given. Inputs are generated columns in physical units and outputs are tendencies
in physical units, so a network's time includes its normalisation. Rates are medians of rounds in which everything takes
its turn.

On a CPU a network takes a large batch in pieces whose activations stay in the cache, as a model code would call it; the
NumPy scheme does so by itself. On a GPU the batch is one call and lies in the GPU's memory.
"""

import argparse
import json
import logging
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ai4sim.atomic import atomic_path
from ai4sim.export import export_network
from benchmarks.common import digits, machine, rates_in_turns
from weather_forecast.gwd import networks
from weather_forecast.gwd.columns import Columns, generate_columns
from weather_forecast.gwd.losses import target_scale
from weather_forecast.gwd.networks import ColumnNetwork
from weather_forecast.gwd.scheme import available_cores, gravity_wave_drag
from weather_forecast.gwd.scheme_torch import GravityWaveDrag
from weather_forecast.gwd.spectrum import SchemeParameters

BATCHES = (1, 256, 65_536)
PIECE = 1024
DISTINCT = 4096  # columns generated; larger batches repeat them
REFERENCE = "scheme 8x32 float32 · NumPy"

NETWORKS: Mapping[str, Callable[[], ColumnNetwork]] = {
    "MLP": networks.MLP,
    "ColumnCNN": networks.ColumnCNN,
    "ColumnCNN legacy": partial(networks.ColumnCNN, legacy=True),
    "LevelBranchNet": networks.LevelBranchNet,
    "DilatedCNN": networks.DilatedCNN,
    "ColumnRNN": networks.ColumnRNN,
    "AzimuthFluxNet": networks.AzimuthFluxNet,
}
SCHEMES: Mapping[str, tuple[int, int, type[np.floating]]] = {
    "scheme 4x20 float32": (4, 20, np.float32),
    "scheme 8x32 float32": (8, 32, np.float32),
    "scheme 8x32 float64": (8, 32, np.float64),
}

Call = Callable[[], object]
Forward = Callable[[Tensor], object]


@dataclass(frozen=True, eq=False)
class Batch:
    """Columns in the forms that networks and schemes take, repeated from the generated ones.

    Attributes:
        x: (n, n_inputs) float32.
        u, v, t: (n, L) float32.
        half_pressure: (n, L+1) float64.
    """

    x: NDArray[np.float32]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    t: NDArray[np.float32]
    half_pressure: NDArray[np.float64]

    @classmethod
    def of(cls, columns: Columns, n: int) -> "Batch":
        """The first n of the columns repeated as often as needed."""

        def repeat(values: NDArray[Any], dtype: type[np.floating]) -> NDArray[Any]:
            return np.resize(values.astype(dtype), (n, values.shape[1]))

        u, v, t = (repeat(values, np.float32) for values in (columns.u, columns.v, columns.t))
        return cls(repeat(columns.inputs(), np.float32), u, v, t, repeat(columns.half_pressure, np.float64))


def build_networks(columns: Columns) -> dict[str, ColumnNetwork]:
    """All networks with random weights and the statistics of the columns."""
    x = columns.inputs().astype(np.float64)
    drag = gravity_wave_drag(columns.u, columns.v, columns.t, columns.half_pressure)
    y = np.concatenate([drag.dudt, drag.dvdt], axis=1)
    built = {}
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        network = make().eval()
        network.inputs.fit(x.mean(axis=0), x.std(axis=0))
        scale, _ = target_scale(y.std(axis=0), network.layout)
        network.outputs.fit(scale)
        built[name] = network
    return built


def in_pieces(forward: Forward, x: Tensor, piece: int) -> Call:
    """A call that runs a network over a batch, in pieces of columns where it is larger."""
    pieces = x.split(piece)

    @torch.inference_mode()
    def call() -> list[object]:
        return [forward(part) for part in pieces]

    return call


def in_bfloat16(network: ColumnNetwork, device: str) -> Forward:
    """A network whose matrix products and convolutions take bfloat16."""

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return network(x)

    return forward


def onnx_forward(path: Path, threads: int) -> Forward:
    """An ONNX file in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.numpy()})


def forwards_on_cpu(built: Mapping[str, ColumnNetwork], x: Tensor, folder: Path, threads: int) -> dict[str, Forward]:
    """Every network in every form, by "name · form"; exporting checks each file against the eager network."""
    forwards: dict[str, Forward] = {}
    for name, network in built.items():
        stem = folder / name.replace(" ", "_")
        files = {suffix: export_network(network, x[:32], stem.with_suffix(suffix)).path for suffix in (".pt2", ".onnx")}
        forwards[f"{name} · eager"] = network
        forwards[f"{name} · eager, bfloat16"] = in_bfloat16(network, "cpu")
        forwards[f"{name} · torch.export"] = torch.export.load(files[".pt2"]).module()
        forwards[f"{name} · ONNX Runtime"] = onnx_forward(files[".onnx"], threads)
    return forwards


def scheme_calls(batch: Batch, threads: int) -> dict[str, Call]:
    """The physical scheme in NumPy and in torch."""
    calls: dict[str, Call] = {}
    for name, (n_azimuths, n_speeds, dtype) in SCHEMES.items():
        calls[f"{name} · NumPy"] = partial(
            gravity_wave_drag,
            batch.u,
            batch.v,
            batch.t,
            batch.half_pressure,
            parameters=SchemeParameters(n_azimuths=n_azimuths, n_speeds=n_speeds),
            dtype=dtype,
            threads=threads,
        )
    calls["scheme 8x32 float32 · torch"] = torch_scheme(batch, torch.device("cpu"), PIECE)
    return calls


def torch_scheme(batch: Batch, device: torch.device, piece: int) -> Call:
    """The torch scheme, 8 x 32 in float32."""
    scheme = GravityWaveDrag().to(device)
    fields = (batch.u, batch.v, batch.t, batch.half_pressure.astype(np.float32))
    parts = list(zip(*(torch.from_numpy(values).to(device).split(piece) for values in fields), strict=True))

    @torch.inference_mode()
    def call() -> list[object]:
        return [scheme(*part) for part in parts]

    return call


def measure_cpu(columns: Columns, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All networks and schemes on the CPU."""
    built = build_networks(columns)
    records = []
    with tempfile.TemporaryDirectory() as folder:
        x = torch.from_numpy(columns.inputs())
        forwards = forwards_on_cpu(built, x, Path(folder), options.threads)
        for n in BATCHES:
            batch = Batch.of(columns, n)
            x = torch.from_numpy(batch.x)
            calls = {name: in_pieces(forward, x, PIECE) for name, forward in forwards.items()}
            calls |= scheme_calls(batch, options.threads)
            rates = rates_in_turns(calls, n, seconds=options.seconds, repeats=options.repeats)
            records += summarise(rates, n, "cpu")
    return records


def measure_gpu(columns: Columns, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Networks, eager and exported, and the torch scheme on the GPU."""
    device = torch.device("cuda")
    records = []
    forwards: dict[str, Forward] = {}
    shapes = ({0: torch.export.Dim("batch")},)
    example = torch.from_numpy(columns.inputs()[:2]).to(device)
    for name, network in build_networks(columns).items():
        forwards[f"{name} · eager"] = network.to(device)
        forwards[f"{name} · eager, bfloat16"] = in_bfloat16(network, "cuda")
        forwards[f"{name} · torch.export"] = torch.export.export(network, (example,), dynamic_shapes=shapes).module()
    for n in BATCHES:
        batch = Batch.of(columns, n)
        x = torch.from_numpy(batch.x).to(device)
        calls = {name: in_pieces(forward, x, n) for name, forward in forwards.items()}
        calls["scheme 8x32 float32 · torch"] = torch_scheme(batch, device, n)
        rates = rates_in_turns(
            calls, n, seconds=options.seconds, repeats=options.repeats, synchronize=torch.cuda.synchronize
        )
        records += summarise(rates, n, torch.cuda.get_device_name())
    return records


def summarise(rates: Mapping[str, Sequence[float]], n: int, device: str) -> list[dict[str, Any]]:
    """One record for each thing measured at one batch size."""
    records = []
    for label, values in rates.items():
        name, form = label.split(" · ")
        record = {
            "model": name,
            "form": form,
            "device": device,
            "batch": n,
            "columns_per_second": digits(statistics.median(values), 4),
            "lowest": digits(min(values), 4),
            "highest": digits(max(values), 4),
        }
        if REFERENCE in rates:
            # of each round, so that a disturbance of the whole machine cancels
            ratios = [own / scheme for own, scheme in zip(values, rates[REFERENCE], strict=True)]
            record["times_reference"] = digits(statistics.median(ratios))
        records.append(record)
    return records


def show(records: Sequence[Mapping[str, Any]], device: str) -> None:
    """Print the table of a device."""
    table = Table(title=f"columns per second, {device}")
    for column in ("model", "form"):
        table.add_column(column)
    for n in BATCHES:
        table.add_column(f"batch {n}", justify="right")
    if device == "cpu":
        table.add_column(f"batch {BATCHES[-1]} / {REFERENCE.split(' · ')[0]}", justify="right")
    rows: dict[tuple[str, str], list[str]] = {}
    for record in records:
        if record["device"] == device:
            row = rows.setdefault((record["model"], record["form"]), [])
            row.append(f"{record['columns_per_second']:,.0f}")
            if record["batch"] == BATCHES[-1] and "times_reference" in record:
                row.append(f"{record['times_reference']:.1f}")
    for key, cells in rows.items():
        table.add_row(*key, *cells)
    Console(width=120).print(table)


def main(args: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.3, help="wall time per measurement")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"], help="by default all that there are")
    parser.add_argument("--threads", type=int, default=available_cores(), help="by default all cores")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gwd_inference.json"))
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs

    columns = generate_columns(DISTINCT, np.random.default_rng(0))
    devices = options.devices or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    measure = {"cpu": measure_cpu, "cuda": measure_gpu}
    records = [record for device in devices for record in measure[device](columns, options)]
    for device in dict.fromkeys(record["device"] for record in records):
        show(records, device)
    result = {
        "benchmark": "gwd_inference",
        "machine": machine("numpy", "torch", "onnxruntime"),
        "threads": options.threads,
        "piece": PIECE,
        "reference": REFERENCE,
        "results": records,
    }
    with atomic_path(options.output) as partial_file:
        partial_file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
