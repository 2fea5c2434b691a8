import numpy as np
import pytest
import torch
from torch import nn

from ai4sim.errors import InputError
from ai4sim.export import ExportError, export_network, load_exported


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x)


class Stateful(Net):
    """Computes something else when it is called again: what tracing cannot see."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_exported_file_equals_eager_at_any_batch_size(tmp_path, suffix):
    torch.manual_seed(0)
    network, x = Net(), torch.randn(32, 5)
    report = export_network(network, x, tmp_path / f"net{suffix}")
    assert report.error < 1e-6
    assert report.batch_sizes == (1, 2, 17)
    run = load_exported(report.path)
    for size in (1, 3, 32):
        np.testing.assert_allclose(run(x[:size].numpy()), network(x[:size]).detach().numpy(), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [f"net{suffix}"]


def test_a_file_that_disagrees_is_not_kept(tmp_path):
    with pytest.raises(ExportError, match="differs from the eager network"):
        export_network(Stateful(), torch.randn(32, 5), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_unknown_format_is_named(tmp_path):
    with pytest.raises(InputError, match=r"net\.pb: use the suffix \.onnx or \.pt2"):
        export_network(Net(), torch.randn(32, 5), tmp_path / "net.pb")


def test_a_file_that_gives_nan_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ai4sim.export.load_exported", lambda path: lambda x: np.full((len(x), 3), np.nan, np.float32))
    with pytest.raises(ExportError, match="differs from the eager network by nan"):
        export_network(Net(), torch.randn(32, 5), tmp_path / "net.pt2")
