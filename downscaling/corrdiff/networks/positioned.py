"""A U-Net that knows where and for which lead time it works."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.networks.backbone import Backbone
from downscaling.corrdiff.networks.embeddings import LeadTimeEmbedding
from downscaling.corrdiff.networks.position import Corners, LearntTable, PositionKind, make_position
from downscaling.corrdiff.networks.song_unet import SongUNet

UNetFactory = Callable[[int, int], Backbone]
"""Makes a U-Net of its numbers of inputs, positions and lead times included, and outputs."""


class PositionedUNet(nn.Module):
    """Concatenates maps, their positions and maps of the lead time, in this order, and hands them to a U-Net.

    Args:
        in_channels: channels of the maps that are given; positions and lead times come on top.
        out_channels: channels of the output.
        domain: rows and columns of the whole domain that positions are of.
        unet: makes the U-Net.
        position: ``sinusoidal``, ``linear``, ``learnable`` or ``none``.
        position_channels: of the positions.
        lead_steps: L, number of lead times, 0 for none; labels go from 0 to L - 1.
        lead_channels: of learnt maps for each lead time and place, 0 for none.
        lead_embedding: add an embedding of the lead time to that of the noise.
        embed_resolution: rows and columns of what is learnt of positions and lead times, see `LearntTable`.
        probability_channels: outputs that are classes of which exactly one occurs: logits in training, which have a
            learnt scale, and probabilities in evaluation.

    Attributes:
        in_channels: as given.
        out_channels: as given.
        takes_corners: whether patches are told apart by where they are.
        multiple: what rows and columns are padded to a multiple of.

    Raises:
        InputError: settings that do not go together; what is wrong with each is said by the parts.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: tuple[int, int],
        unet: UNetFactory = SongUNet,
        position: PositionKind = "sinusoidal",
        position_channels: int = 4,
        lead_steps: int = 0,
        lead_channels: int = 0,
        lead_embedding: bool = False,
        embed_resolution: tuple[int, int] | None = None,
        probability_channels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if (lead_steps > 0) != (lead_channels > 0 or lead_embedding):
            raise InputError(
                f"lead_steps is {lead_steps}, lead_channels {lead_channels} and lead_embedding {lead_embedding}: lead"
                " times need their number, and channels or an embedding"
            )
        if embed_resolution is not None and position != "learnable" and not lead_channels:
            raise InputError("embed_resolution is set, but nothing is learnt of places: leave it out")
        classes = sorted(set(probability_channels))
        if classes != sorted(probability_channels) or not all(0 <= channel < out_channels for channel in classes):
            raise InputError(
                f"probability_channels are {list(probability_channels)}; expected different numbers from 0 to"
                f" {out_channels - 1}"
            )
        if len(classes) == 1:
            raise InputError(f"probability_channels are {classes}: the probability of a single class is always 1")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.domain = (int(domain[0]), int(domain[1]))
        self.lead_steps = lead_steps
        self.position = make_position(position, position_channels, self.domain, embed_resolution)
        self.lead_table: LearntTable | None = None
        if lead_channels:
            self.lead_table = LearntTable(self.domain, lead_steps, lead_channels, embed_resolution)
        extra = lead_channels + (0 if self.position is None else self.position.channels)
        self.unet = unet(in_channels + extra, out_channels)
        self.lead_embedding = LeadTimeEmbedding(lead_steps, self.unet.n_embedding) if lead_embedding else None
        self.classes = classes
        self.logit_scale = nn.Parameter(torch.ones(len(classes))) if classes else None

    @property
    def takes_corners(self) -> bool:
        """Whether patches are told apart by where they are."""
        return self.position is not None or self.lead_table is not None

    @property
    def multiple(self) -> int:
        """What rows and columns are padded to a multiple of."""
        return self.unet.multiple

    def forward(
        self, x: Tensor, noise_label: Tensor, lead_label: Tensor | None = None, corners: Corners | None = None
    ) -> Tensor:
        """Outputs (B, out_channels, H, W).

        Args:
            x: (B, in_channels, H, W), of the whole domain or of patches.
            noise_label: (B,), a function of the noise's standard deviation.
            lead_label: (B,) numbers of lead times, needed where there are lead times.
            corners: (B, 2) first row and column of every patch in the domain; without them it must be the domain.

        Raises:
            ValueError: tensors of another shape, labels that are missing or out of range, patches out of the domain.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"PositionedUNet got maps of the shape {tuple(x.shape)}, not (B, {self.in_channels}, H, W)"
            )
        n, shape = x.shape[0], (x.shape[2], x.shape[3])
        places = self._checked_corners(corners, n, shape)
        if self.lead_steps:
            lead_label = self._checked_leads(lead_label, n)
        parts = [x]
        if self.position is not None:
            zero = torch.zeros(n, dtype=torch.long, device=x.device)
            parts.append(self.position(shape, zero, places).to(x.dtype))
        if self.lead_table is not None:
            parts.append(self.lead_table(shape, lead_label, places).to(x.dtype))
        embedding = None if self.lead_embedding is None else self.lead_embedding(lead_label)
        y: Tensor = self.unet(torch.cat(parts, dim=1), noise_label, embedding)
        return self._with_probabilities(y)

    def _with_probabilities(self, y: Tensor) -> Tensor:
        if self.logit_scale is None:
            return y
        index = torch.tensor(self.classes, device=y.device)
        logits = y.index_select(1, index) * self.logit_scale[:, None, None]
        return y.index_copy(1, index, (logits if self.training else logits.softmax(dim=1)).to(y.dtype))

    def _checked_corners(self, corners: Corners | None, n: int, shape: tuple[int, int]) -> Tensor | None:
        if not self.takes_corners:
            return None
        (height, width), (rows, columns) = shape, self.domain
        if corners is None:
            if shape != self.domain:
                raise ValueError(
                    f"PositionedUNet got maps of {height} x {width} without corners, but its domain is"
                    f" {rows} x {columns}: say where they are in it"
                )
            return None
        places = torch.as_tensor(corners)
        if places.shape != (n, 2) or places.is_floating_point():
            raise ValueError(
                f"PositionedUNet got corners of the shape {tuple(places.shape)} and type {places.dtype}, not ({n}, 2)"
                " whole numbers"
            )
        # to look at numbers on a device would wait for it, and a traced network has none to look at
        if places.device.type == "cpu" and not torch.compiler.is_compiling():
            limits = torch.tensor([rows - height, columns - width])
            outside = ((places < 0) | (places > limits)).any(dim=1)
            if bool(outside.any()):
                row, column = places[outside][0].tolist()
                raise ValueError(
                    f"a patch of {height} x {width} at row {row} and column {column} is not within the domain of"
                    f" {rows} x {columns}"
                )
        return places.long()

    def _checked_leads(self, labels: Tensor | None, n: int) -> Tensor:
        if labels is None or labels.shape != (n,):
            got = "none" if labels is None else f"the shape {tuple(labels.shape)}"
            raise ValueError(f"PositionedUNet needs labels of lead times of the shape ({n},), got {got}")
        if self.lead_table is not None and labels.is_floating_point():
            raise ValueError(f"labels of lead times must be whole numbers, not {labels.dtype}")
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            outside = (labels < 0) | (labels > self.lead_steps - 1)
            if bool(outside.any()):
                raise ValueError(
                    f"a label of lead times is {labels[outside][0].item()}; expected 0 to {self.lead_steps - 1}"
                )
        return labels
