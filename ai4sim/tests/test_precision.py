import torch

from ai4sim.networks import at_full_precision


def test_without_autocast_nothing_is_converted(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("autocast is entered")

    monkeypatch.setattr(torch, "autocast", refuse)
    x = torch.randn(2, 3)
    assert at_full_precision(lambda y: y, x) is x
    assert at_full_precision(torch.add, x.double(), x.double()).dtype == torch.float64
    half = x.bfloat16()  # of a network that is in half precision as a whole
    assert at_full_precision(lambda y: y, half) is half
    assert at_full_precision(torch.neg, x.to("meta")).device.type == "meta"


def test_with_autocast_double_stays_double():
    half, double = torch.randn(2, 3).bfloat16(), torch.randn(2, 3).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert at_full_precision(lambda y: y, half).dtype == torch.float32
        assert at_full_precision(lambda y: y, double) is double
        assert at_full_precision(torch.matmul, half, half.T).dtype == torch.float32
        # outside of it autocast goes on
        assert torch.matmul(half, half.T).dtype == torch.bfloat16
