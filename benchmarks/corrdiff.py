"""CorrDiff's U-Net and sampler against the same network written plainly, and against the peer's.

Run ``python -m benchmarks.corrdiff``. The network is that of HRRR-Mini: 64 x 64 points, 10.9 million parameters. All
sides have the same weights and are checked to give the same before they are timed:

- "plain" is the network written down with torch's functions, maps in memory channel by channel;
- "physicsnemo" is the reference's, in training mode for training passes and in evaluation mode for forward passes, as
  its users have it. It is left out where it cannot be imported (``pip install nvidia-physicsnemo``; no dependency);
- ours is timed as it is, and with weights that lie in memory channels last, too.

The sampler is Heun's with 18 steps, that is 35 calls of the network, from the same noise on all sides.

Values are compared in training mode without dropout: in evaluation mode the peer's normalisations take the unbiased
variance. Rates are medians of rounds in which all take their turn. ``--clock cpu`` counts the time of the process
instead of the wall's, for machines on which others work too; it needs one thread.
"""

import argparse
import copy
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai4sim.atomic import atomic_path
from benchmarks.common import digits, machine, print_records
from benchmarks.lam_grid import CLOCKS, rates_in_turns
from downscaling.corrdiff.diffusion import Denoiser, Edm, HeunSampler, Schedule
from downscaling.corrdiff.networks import SongUNet
from downscaling.corrdiff.networks.blocks import Block, doubled, halved

SIZE, CHANNELS = 64, (36, 2)  # the denoiser of HRRR-Mini
SETTINGS: Mapping[str, Any] = {
    "model_channels": 64,
    "channel_mult": [1, 2, 2],
    "num_blocks": 4,
    "attn_resolutions": [16],
    "dropout": 0.0,
    "embedding_type": "positional",
}
BATCHES = (1, 8)
MEMBERS, SCHEDULE = 2, Schedule()
OUR_NAME, LAST_NAME, PLAIN_NAME, PEER_NAME = "ai4sim", "ai4sim_weights_last", "plain", "physicsnemo"

Network = Callable[[Tensor, Tensor], Tensor]
Calls = Mapping[str, Callable[[], object]]


class Plain(nn.Module):
    """The network written down: no layout, nothing in place, attention as its formula.

    Args:
        network: whose weights it has.
    """

    def __init__(self, network: SongUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, noise_label: Tensor) -> Tensor:
        """(B, outputs, H, W)."""
        own = self.network
        embedding = own.noise_embedding(noise_label, like=x)
        skips = [x := functional.conv2d(x, own.stem.weight, own.stem.bias, padding=1)]
        for block in own.encoder:
            assert isinstance(block, Block)
            x = self._block(block, x, embedding)
            skips.append(x)
        for block in own.decoder:
            assert isinstance(block, Block)
            # a block that takes a skip has more channels to come than there are
            if block.norm0.num_channels != x.shape[1]:
                x = torch.cat([x, skips.pop()], dim=1)
            x = self._block(block, x, embedding)
        return functional.conv2d(functional.silu(own.norm(x)), own.head.weight, own.head.bias, padding=1)

    @staticmethod
    def _block(block: Block, x: Tensor, embedding: Tensor) -> Tensor:
        def resample(maps: Tensor) -> Tensor:
            if block.resample is None:
                return maps
            return halved(maps) if block.resample == "down" else doubled(maps)

        h = functional.conv2d(
            resample(functional.silu(block.norm0(x))), block.conv0.weight, block.conv0.bias, padding=1
        )
        h = functional.silu(block.norm1(h + block.affine(embedding)[:, :, None, None]))
        h = functional.conv2d(h, block.conv1.weight, block.conv1.bias, padding=1)
        shortcut = resample(x)
        if block.shortcut is not None:
            shortcut = functional.conv2d(shortcut, block.shortcut.weight, block.shortcut.bias)
        x = (h + shortcut) / 2**0.5
        own = block.attention
        if own is None:
            return x
        q, k, v = functional.conv2d(own.norm(x), own.qkv.weight, own.qkv.bias).flatten(2).chunk(3, dim=1)
        weights = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)
        a = (v @ weights.transpose(1, 2)).reshape(x.shape)
        return (x + functional.conv2d(a, own.projection.weight, own.projection.bias)) / 2**0.5


def make_ours() -> SongUNet:
    """Our network, with last layers of ordinary size: those it begins with would hide differences."""
    network = SongUNet(*CHANNELS, resolution=SIZE, **SETTINGS)
    with torch.no_grad():
        for parameter in network.parameters():
            if 0 < parameter.abs().max() < 1e-3:
                parameter.mul_(1e5)
    return network


def make_peer(ours: SongUNet) -> nn.Module:
    """The reference's network with the weights of ours."""
    kind = import_module("physicsnemo.models.diffusion_unets").SongUNet
    network: nn.Module = kind(SIZE, *CHANNELS, **SETTINGS)
    parts = [ours.noise_embedding, ours.stem, *ours.encoder, *ours.decoder, ours.norm, ours.head]
    values = [parameter for part in parts for parameter in part.parameters()]
    with torch.no_grad():
        for (name, place), value in zip(network.named_parameters(), values, strict=True):
            if ".qkv." in name:  # query, key and value of a channel are next to each other there
                value = value.unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1)
            place.copy_(value)
    return network


def difference(ours: nn.Module, theirs: nn.Module, inputs: tuple[Tensor, Tensor]) -> float:
    """Largest difference of the outputs over the root mean square of theirs, in training mode."""
    with torch.no_grad():
        own, other = (network.train()(*inputs).double() for network in (ours, theirs))
    return float((own - other).abs().max() / other.square().mean().sqrt())


def forward(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """A call that goes forward once, in evaluation mode."""

    @torch.inference_mode()
    def call() -> object:
        return network.eval()(*inputs)

    return call


def training(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """A call that goes forward and backward once."""

    def call() -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        network(*inputs).square().mean().backward()

    return call


def measure_networks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both passes for all sizes of batches."""
    torch.manual_seed(0)
    ours = make_ours()
    networks: dict[str, nn.Module] = {
        OUR_NAME: ours,
        LAST_NAME: copy.deepcopy(ours),
        PLAIN_NAME: Plain(copy.deepcopy(ours)),
    }
    to: Callable[..., nn.Module] = networks[LAST_NAME].to  # its annotation forgets memory_format
    to(memory_format=torch.channels_last)
    if has_peer():
        networks[PEER_NAME] = make_peer(ours)
    records = []
    for batch in BATCHES:
        inputs = torch.randn(batch, CHANNELS[0], SIZE, SIZE), torch.randn(batch)
        errors = {name: difference(ours, other, inputs) for name, other in networks.items() if name != OUR_NAME}
        for name, error in errors.items():
            if not error < 1e-4:
                raise RuntimeError(f"the result differs from that of {name} by {error:.2e} of its RMS")
        for task, make in (("forward", forward), ("forward and backward", training)):
            calls: Calls = {name: make(network, inputs) for name, network in networks.items()}
            rates = rates_in_turns(calls, options.repeats, CLOCKS[options.clock])
            record = {"task": task, "batch": batch} | summarise(rates)
            records.append(record | {"difference": {name: digits(error, 2) for name, error in errors.items()}})
    return records


class Given:
    """The first noise of a sampler that needs no other.

    Args:
        latents: (B, C, H, W) of scale 1.
    """

    def __init__(self, latents: Tensor) -> None:
        self._latents = latents

    def draw(self) -> Tensor:
        """The noise."""
        return self._latents


def our_sampler(network: nn.Module, latents: Tensor, condition: Tensor) -> Callable[[], Tensor]:
    """A call that draws members with our denoiser and sampler."""
    denoiser, sampler = Denoiser(network, Edm()), HeunSampler(SCHEDULE)

    @torch.inference_mode()
    def call() -> Tensor:
        return sampler.sample(lambda x, sigma: denoiser(x, sigma, condition), Given(latents))

    return call


def peer_sampler(network: nn.Module, latents: Tensor, condition: Tensor) -> Callable[[], Tensor]:
    """A call that draws members with the reference's preconditioning and sampler."""
    settings = {"img_in_channels": condition.shape[1], "img_out_channels": latents.shape[1], "model_type": "SongUNet"}
    kind = import_module("physicsnemo.diffusion.preconditioners").EDMPrecondSuperResolution
    denoiser = kind(SIZE, **settings, **SETTINGS)
    denoiser.model = network
    sample = import_module("physicsnemo.diffusion.samplers").stochastic_sampler
    steps = {name: getattr(SCHEDULE, name) for name in ("num_steps", "sigma_min", "sigma_max", "rho")}

    @torch.inference_mode()
    def call() -> Tensor:
        members: Tensor = sample(denoiser, latents, condition, **steps)
        return members

    return call


def measure_sampler(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All calls of the network for some members, and what is done between them."""
    torch.manual_seed(0)
    ours = make_ours()
    latents = torch.randn(MEMBERS, CHANNELS[1], SIZE, SIZE)
    condition = torch.randn(MEMBERS, CHANNELS[0] - CHANNELS[1], SIZE, SIZE)
    networks = {OUR_NAME: ours, PLAIN_NAME: Plain(copy.deepcopy(ours))}
    calls = {name: our_sampler(network, latents, condition) for name, network in networks.items()}
    if has_peer():
        networks[PEER_NAME] = make_peer(ours)
        calls[PEER_NAME] = peer_sampler(networks[PEER_NAME], latents, condition)
    members = {name: call() for name, call in calls.items()}  # in training mode, see above
    scale = members[OUR_NAME].square().mean().sqrt()
    errors = {name: float((other - members[OUR_NAME]).abs().max() / scale) for name, other in members.items()}
    for name, error in errors.items():
        if not error < 1e-3:
            raise RuntimeError(f"members differ from those of {name} by {error:.2e} of their RMS")
    for network in networks.values():
        network.eval()
    # every sampler is many calls of the network: few rounds say enough
    rates = rates_in_turns(calls, min(options.repeats, 3), CLOCKS[options.clock])
    record = {"task": f"Heun, {SCHEDULE.num_steps} steps", "batch": MEMBERS} | summarise(rates)
    return [record | {"difference": {name: digits(e, 2) for name, e in errors.items() if name != OUR_NAME}}]


def summarise(rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Median seconds of each, and medians of the rounds' ratios, in which what disturbs the machine cancels."""
    result: dict[str, Any] = {
        f"{name}_seconds": digits(statistics.median(1 / rate for rate in values)) for name, values in rates.items()
    }
    for name, values in rates.items():
        if name != OUR_NAME:
            ratios = [own / other for own, other in zip(rates[OUR_NAME], values, strict=True)]
            result[f"ratio_{name}"] = digits(statistics.median(ratios))
    return result


def has_peer() -> bool:
    """Whether the reference can be imported; says why not."""
    if find_spec("physicsnemo") is None:
        print("physicsnemo is left out: it is not installed (pip install nvidia-physicsnemo)")
        return False
    try:
        import_module("physicsnemo.models.diffusion_unets")
    except (ImportError, RuntimeError) as error:  # it imports much that it does not need here
        print(f"physicsnemo is left out: it cannot be imported ({error})")
        return False
    return True


def show_records(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a table."""
    names = [name for name in (PLAIN_NAME, PEER_NAME) if f"ratio_{name}" in records[0]]
    columns = ["task", "batch", f"{OUR_NAME}_seconds"]
    columns += [f"{name}_seconds" for name in names] + [f"ratio_{name}" for name in names]
    print_records("seconds; ratio above 1: faster than that one", columns, records)


SECTIONS: Mapping[
    str, tuple[Callable[[argparse.Namespace], list[dict[str, Any]]], Callable[[Sequence[Mapping[str, Any]]], None]]
] = {"networks": (measure_networks, show_records), "sampler": (measure_sampler, show_records)}
"""What is measured, by its name in the results, and how it is shown."""


def main(args: list[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/corrdiff.json"))
    options = parser.parse_args(args)
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu needs --threads 1")
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "benchmark": "corrdiff",
        "threads": options.threads,
        "clock": options.clock,
        "network": {"size": SIZE, "channels": CHANNELS, **SETTINGS},
    }
    for name, (measure, show) in SECTIONS.items():
        result[name] = measure(options)
        show(result[name])
    packages = ["torch", *(["nvidia-physicsnemo"] if f"ratio_{PEER_NAME}" in result["networks"][0] else [])]
    result["machine"] = machine(*packages)
    with atomic_path(options.output) as partial_file:
        partial_file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
