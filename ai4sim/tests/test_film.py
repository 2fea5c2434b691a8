import pytest
import torch

from ai4sim.networks import Film


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(film: Film) -> Film:
    torch.nn.init.normal_(film.linear.weight)
    torch.nn.init.normal_(film.linear.bias)
    return film


def test_untrained_modulation_changes_nothing():
    x = torch.randn(3, 5, 4, 6)
    torch.testing.assert_close(Film(7, 5)(x, torch.randn(3, 7)), x, rtol=0, atol=0)


def test_untrained_modulation_learns():
    film = Film(7, 5)
    film(torch.randn(3, 5, 4, 6), torch.randn(3, 7)).square().sum().backward()
    assert (film.linear.weight.grad != 0).all()
    assert (film.linear.bias.grad != 0).all()


@pytest.mark.parametrize("grid", [(), (9,), (4, 6), (2, 3, 4)])
def test_modulation_is_that_of_the_paper(grid):
    film = randomised(Film(7, 5))
    x, embedding = torch.randn(3, 5, *grid), torch.randn(3, 7)
    y = film(x, embedding)
    assert y.shape == x.shape
    weight, bias = film.linear.weight.detach(), film.linear.bias.detach()
    for sample in range(3):
        for channel in range(5):
            gamma = weight[channel] @ embedding[sample] + bias[channel]
            beta = weight[5 + channel] @ embedding[sample] + bias[5 + channel]
            torch.testing.assert_close(y[sample, channel], (1 + gamma) * x[sample, channel] + beta)


def test_one_embedding_serves_all_samples():
    film, x, embedding = randomised(Film(7, 5)), torch.randn(3, 5, 4, 6), torch.randn(1, 7)
    torch.testing.assert_close(film(x, embedding), film(x, embedding.expand(3, -1)))


def test_layout_in_memory_is_kept():
    x = torch.randn(2, 5, 4, 6).contiguous(memory_format=torch.channels_last)
    assert Film(7, 5)(x, torch.randn(2, 7)).is_contiguous(memory_format=torch.channels_last)


def test_gradients():
    film = randomised(Film(3, 2)).double()
    x, embedding = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 2, 2, 3), (2, 3)))
    assert torch.autograd.gradcheck(film, (x, embedding))
