"""Networks: features and conditions in, what a head makes distributions of out."""

from precip_postproc.resunet_qpf.networks.attn_res_unet import AttnResUNet
from precip_postproc.resunet_qpf.networks.base import QpfNetwork
from precip_postproc.resunet_qpf.networks.blocks import AttentionGate, ResidualBlock
from precip_postproc.resunet_qpf.networks.conditioned import ConditionedResUNet
from precip_postproc.resunet_qpf.networks.res_unet import ResUNet

__all__ = ["AttentionGate", "AttnResUNet", "ConditionedResUNet", "QpfNetwork", "ResUNet", "ResidualBlock"]
