"""Where half precision is not enough."""

from collections.abc import Callable

import torch
from torch import Tensor


def at_full_precision(function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """A function of maps in single precision at least, also where autocast would have it in half precision.

    It is for what comes last in a network. Logits in bfloat16 between 4 and 8 go in steps of 1/32, and the odds of rare
    events in steps of 3 %. Without autocast the function is called as it is: nothing of this is in exported networks.

    Args:
        function: gives a tensor of the maps; its own parameters are of single precision, as autocast leaves them.
        maps: on one device.
    """
    device = maps[0].device.type
    # asking for autocast on a device that has none, such as "meta", is an error
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return function(*maps)
    with torch.autocast(device, enabled=False):
        return function(*(x.to(torch.promote_types(x.dtype, torch.float32)) for x in maps))
