"""Names stay with their dimensions and features, through every operation."""

import copy
import pickle

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.utilities.data import extract_batch_size

from ai4sim.named_tensor import NamedTensor

NAMES = ["batch", "lat", "lon", "features"]


def make(*shape: int, features: str = "u v t", names: list[str] | None = None) -> NamedTensor:
    names = names or NAMES[-len(shape) :]
    size = torch.Size(shape)
    return NamedTensor(torch.arange(size.numel(), dtype=torch.float32).reshape(size), names, features.split())


@pytest.fixture
def nt() -> NamedTensor:
    return make(2, 4, 5, 3)


class TestConstruction:
    def test_it_says_what_it_is(self, nt: NamedTensor) -> None:
        assert nt.ndims == 4
        assert nt.shape == (2, 4, 5, 3)
        assert nt.dtype == torch.float32
        assert nt.device == torch.device("cpu")
        assert nt.spatial_dim_idx == [1, 2]
        assert nt.num_spatial_dims == 2
        assert nt.feature_dim_idx == 3
        assert nt.feature_names_to_idx == {"u": 0, "v": 1, "t": 2}
        assert nt.dim_size("lon") == 5
        assert nt.dim_index("lat") == 1

    def test_flat_grids_have_one_spatial_dimension(self) -> None:
        assert make(2, 7, 3, names=["batch", "ngrid", "features"]).spatial_dim_idx == [1]

    def test_sequences_become_lists_of_its_own(self) -> None:
        names, features = ["lat", "features"], ["a", "b"]
        made = NamedTensor(torch.zeros(3, 2), names, features)
        names.append("x")
        features.append("c")
        assert made.names == ["lat", "features"]
        assert made.feature_names == ["a", "b"]
        assert NamedTensor(torch.zeros(3, 2), ("lat", "features"), ("a", "b")).names == ["lat", "features"]

    @pytest.mark.parametrize(
        ("names", "features", "message"),
        [
            (["lat", "features"], ["a", "b"], r"2 names \['lat', 'features'\] for a tensor of 3 dimensions"),
            (["lat", "lon", "time"], ["a", "b"], "there is no dimension 'features'; there are"),
            (["lat", "lon", "features"], ["a"], r"'features' has size 2, but there are 1 feature names: \['a'\]"),
            (["lat", "lat", "features"], ["a", "b"], r"dimension names repeat: \['lat'\]"),
            (["lat", "lon", "features"], ["a", "a"], r"feature names repeat: \['a'\]"),
        ],
    )
    def test_names_that_do_not_fit(self, names: list[str], features: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            NamedTensor(torch.zeros(3, 4, 2), names, features)

    def test_missing_dimension(self, nt: NamedTensor) -> None:
        for method in (nt.dim_size, nt.dim_index):
            with pytest.raises(
                ValueError, match=r"no dimension 'time'; there are \['batch', 'lat', 'lon', 'features'\]"
            ):
                method("time")

    def test_text_has_shape_and_range_of_each_feature(self, nt: NamedTensor) -> None:
        lines = str(nt).splitlines()
        assert lines[0] == "NamedTensor(batch: 2, lat: 4, lon: 5, features: 3)"
        assert lines[1].split() == ["feature", "min", "max"]
        assert lines[2].split() == ["u", "0", "117"]
        assert lines[4].split() == ["t", "2", "119"]


class TestFeatures:
    def test_one_feature_is_a_view_that_keeps_the_dimension(self, nt: NamedTensor) -> None:
        assert torch.equal(nt["v"], nt.tensor[..., 1:2])
        assert nt["v"].data_ptr() == nt.tensor[..., 1:2].data_ptr()

    def test_several_features(self, nt: NamedTensor) -> None:
        some = nt[["t", "u"]]
        assert some.feature_names == ["t", "u"]
        assert torch.equal(some.tensor, nt.tensor[..., [2, 0]])

    @pytest.mark.parametrize("key", ["w", ["u", "w"]])
    def test_unknown_feature(self, nt: NamedTensor, key: str | list[str]) -> None:
        with pytest.raises(ValueError, match=r"no feature 'w'; there are \['u', 'v', 't'\]"):
            nt[key]

    def test_joined(self, nt: NamedTensor) -> None:
        both = nt | make(2, 4, 5, 2, features="q z")
        assert both.feature_names == ["u", "v", "t", "q", "z"]
        assert torch.equal(both["q"], make(2, 4, 5, 2, features="q z")["q"])
        assert (nt | None) is nt
        assert (None | nt) is nt

    def test_joined_along_a_feature_dimension_of_another_name(self) -> None:
        def channels(name: str) -> NamedTensor:
            return NamedTensor(torch.ones(1, 3), ["channel", "lon"], [name], feature_dim_name="channel")

        both = channels("a") | channels("b")
        assert both.shape == (2, 3)
        assert both.feature_dim_name == "channel"

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (torch.zeros(2, 4, 5, 3), "not a Tensor"),
            (make(2, 4, 5, 2, features="q u"), r"features \['u'\] are in more than one"),
            (make(2, 4, 5, 1, features="q", names=["batch", "lon", "lat", "features"]), "dimensions differ"),
            (make(2, 4, 5, 1, features="q").rearrange_("batch lat lon features -> batch lat features lon"), "differ"),
        ],
    )
    def test_what_cannot_be_joined(self, nt: NamedTensor, other: NamedTensor, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            nt | other

    def test_other_feature_dimension_is_not_joined(self) -> None:
        a = NamedTensor(torch.zeros(2, 2), ["lat", "features"], ["a", "b"])
        b = NamedTensor(torch.zeros(2, 2), ["lat", "features"], ["c", "d"], feature_dim_name="lat")
        with pytest.raises(ValueError, match="feature dimensions differ: 'features' and 'lat'"):
            a | b

    def test_concat(self, nt: NamedTensor) -> None:
        more = [make(2, 4, 5, 1, features=name) for name in "abc"]
        assert NamedTensor.concat([nt, *more]).feature_names == ["u", "v", "t", "a", "b", "c"]
        alone = NamedTensor.concat([nt])
        assert alone == nt
        assert alone.tensor.data_ptr() != nt.tensor.data_ptr()
        with pytest.raises(ValueError, match="nothing to concatenate"):
            NamedTensor.concat([])

    def test_stack(self, nt: NamedTensor) -> None:
        two = NamedTensor.stack([nt, nt], "time", 1)
        assert two.names == ["batch", "time", "lat", "lon", "features"]
        assert two.shape == (2, 2, 4, 5, 3)
        assert NamedTensor.stack([nt], "time", 0).names[0] == "time"
        assert NamedTensor.stack([nt], "time", 0).shape == (1, 2, 4, 5, 3)
        assert NamedTensor.stack([nt, nt], "time", -1).names[-1] == "time"
        with pytest.raises(ValueError, match="features differ"):
            NamedTensor.stack([nt, make(2, 4, 5, 3, features="a b c")], "time")
        with pytest.raises(ValueError, match="nothing to stack"):
            NamedTensor.stack([], "time")


class TestCopies:
    def test_clone_has_its_own_data_and_passes_gradients(self, nt: NamedTensor) -> None:
        nt.tensor.requires_grad_()
        clone = nt.clone()
        clone.tensor.sum().backward()
        assert nt.tensor.grad is not None
        assert torch.equal(nt.tensor.grad, torch.ones_like(nt.tensor))
        clone.feature_names[0] = "changed"
        assert nt.feature_names[0] == "u"

    def test_all_keep_the_name_of_the_feature_dimension(self) -> None:
        nt = NamedTensor(torch.zeros(2, 3), ["channel", "lon"], ["a", "b"], feature_dim_name="channel")
        batched = NamedTensor.expand_to_batch_like(torch.ones(7, 2, 3), nt)
        assert batched.names == ["batch", "channel", "lon"]
        made = [nt.clone(), NamedTensor.new_like(torch.ones(2, 3), nt), batched, nt.to(torch.float64)]
        made += [NamedTensor.stack([nt], "time"), NamedTensor.collate_fn([nt, nt]), nt.select_dim("lon", 0)]
        made += [nt.index_select_dim("lon", [0]), copy.deepcopy(nt), pickle.loads(pickle.dumps(nt))]
        assert {one.feature_dim_name for one in made} == {"channel"}

    def test_expand_to_batch_like_wants_one_dimension_more(self, nt: NamedTensor) -> None:
        with pytest.raises(ValueError, match="5 names"):
            NamedTensor.expand_to_batch_like(torch.zeros(2, 4, 5, 3), nt)

    def test_equality_is_a_truth_value(self, nt: NamedTensor) -> None:
        assert (nt == nt.clone()) is True
        assert (nt == NamedTensor.new_like(nt.tensor + 1, nt)) is False
        assert (nt == make(2, 4, 5, 3, features="a b c")) is False
        assert (nt == "text") is False
        assert nt in {nt}

    def test_copy_and_pickle(self, nt: NamedTensor) -> None:
        for other in (copy.copy(nt), copy.deepcopy(nt), pickle.loads(pickle.dumps(nt))):
            assert other == nt
        assert copy.deepcopy(nt).tensor.data_ptr() != nt.tensor.data_ptr()

    def test_lightning_moves_it_and_finds_the_batch_size(self, nt: NamedTensor) -> None:
        moved = move_data_to_device({"inputs": nt}, torch.device("meta"))["inputs"]
        assert isinstance(moved, NamedTensor)
        assert moved.device.type == "meta"
        assert moved.feature_names == nt.feature_names
        assert extract_batch_size(nt) == 2


class TestCollate:
    def test_samples_are_stacked(self) -> None:
        batch = NamedTensor.collate_fn([make(4, 5, 3), make(4, 5, 3)])
        assert batch.names == NAMES
        assert batch.shape == (2, 4, 5, 3)

    def test_padding_goes_behind_the_data_and_leaves_samples_alone(self) -> None:
        short, long = make(2, 5, 3), make(4, 5, 3)
        kept = short.clone()
        batch = NamedTensor.collate_fn([short, long], pad_dims=["lat"], pad_value=-1.0)
        assert batch.shape == (2, 4, 5, 3)
        assert torch.equal(batch.tensor[0, :2], short.tensor)
        assert (batch.tensor[0, 2:] == -1).all()
        assert torch.equal(batch.tensor[1], long.tensor)
        assert short == kept
        assert short.names == ["lat", "lon", "features"]

    def test_unknown_dimension_to_pad(self) -> None:
        with pytest.raises(ValueError, match="no dimension 'time'"):
            NamedTensor.collate_fn([make(4, 5, 3)], pad_dims=["time"])
        with pytest.raises(ValueError, match="nothing to collate"):
            NamedTensor.collate_fn([])


class TestInPlace:
    def test_flatten_and_unflatten(self, nt: NamedTensor) -> None:
        original = nt.tensor
        assert nt.flatten_("ngrid", 1, 2) is nt
        assert nt.names == ["batch", "ngrid", "features"]
        assert nt.shape == (2, 20, 3)
        nt.unflatten_(1, (4, 5), ("lat", "lon"))
        assert nt.names == NAMES
        assert torch.equal(nt.tensor, original)
        nt.flatten_("ngrid", -3, -2)
        assert nt.names == ["batch", "ngrid", "features"]

    def test_features_are_swallowed_only_on_demand(self, nt: NamedTensor) -> None:
        with pytest.raises(ValueError, match=r"\['lon', 'features'\] include the features; set allow_features"):
            nt.flatten_("x", 2, -1)
        plain = nt.flatten_("x", 2, -1, allow_features=True)
        assert isinstance(plain, torch.Tensor)
        assert plain.shape == (2, 4, 15)

    def test_unflatten_wants_a_name_for_every_size(self, nt: NamedTensor) -> None:
        with pytest.raises(ValueError, match="2 sizes"):
            nt.unflatten_(1, (2, 2), ("a",))
        with pytest.raises(ValueError, match="dimension names repeat"):
            nt.unflatten_(1, (2, 2), ("a", "lon"))

    def test_squeeze_and_unsqueeze(self, nt: NamedTensor) -> None:
        nt.unsqueeze_("time", 1).unsqueeze_("member", -1)
        assert nt.names == ["batch", "time", "lat", "lon", "features", "member"]
        nt.squeeze_(["member", "time"])
        assert nt.names == NAMES
        nt.unsqueeze_("time", 0).squeeze_("time")
        assert nt.shape == (2, 4, 5, 3)
        with pytest.raises(ValueError, match="'lat' has size 4; only size 1"):
            nt.squeeze_("lat")

    def test_rearrange(self, nt: NamedTensor) -> None:
        before = nt.tensor
        nt.rearrange_("batch lat lon features -> batch features lat lon")
        assert nt.names == ["batch", "features", "lat", "lon"]
        assert nt.feature_dim_idx == 1
        assert torch.equal(nt.tensor, before.permute(0, 3, 1, 2))
        assert nt.tensor.data_ptr() == before.data_ptr()

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            ("batch lat lon -> lat lon batch", "must begin with batch lat lon features ->"),
            ("batch lat lon features", "must begin with"),
            ("batch lat lon features -> batch lat lon", "same names on both sides"),
            ("batch lat lon features -> batch lat lat features", "same names on both sides"),
        ],
    )
    def test_what_is_no_permutation(self, nt: NamedTensor, pattern: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            nt.rearrange_(pattern)

    def test_missing_spatial_dimensions_are_expanded_as_a_view(self, nt: NamedTensor) -> None:
        scalar = make(2, 3, names=["batch", "features"])
        data = scalar.tensor
        scalar.unsqueeze_and_expand_from_(nt)
        assert scalar.names == NAMES
        assert scalar.shape == (2, 4, 5, 3)
        assert scalar.tensor.data_ptr() == data.data_ptr()
        assert torch.equal(scalar.tensor, data[:, None, None].expand(2, 4, 5, 3))

    def test_only_spatial_dimensions_are_inserted(self, nt: NamedTensor) -> None:
        one = make(5, 3, names=["lon", "features"])
        assert one.unsqueeze_and_expand_from_(make(2, 4, 5, 3)).names == ["lat", "lon", "features"]

    def test_types_and_places(self, nt: NamedTensor) -> None:
        assert nt.type_(torch.float64).dtype == torch.float64
        assert nt.to_(torch.float16).dtype == torch.float16
        assert nt.to_("meta").device.type == "meta"
        if torch.cuda.is_available():
            assert make(2, 3).pin_memory_().tensor.is_pinned()


class TestSelection:
    def test_select(self, nt: NamedTensor) -> None:
        row = nt.select_dim("lat", -1)
        assert row.names == ["batch", "lon", "features"]
        assert torch.equal(row.tensor, nt.tensor[:, -1])
        assert torch.equal(nt.select_tensor_dim("features", 1), nt.tensor[..., 1])
        with pytest.raises(ValueError, match="cannot take away the feature dimension"):
            nt.select_dim("features", 0)

    def test_index_select(self, nt: NamedTensor) -> None:
        rows = nt.index_select_dim("lat", [-1, 0])
        assert torch.equal(rows.tensor, nt.tensor[:, [3, 0]])
        features = nt.index_select_dim("features", torch.tensor([-1, 0]))
        assert features.feature_names == ["t", "u"]
        assert torch.equal(features.tensor, nt.tensor[..., [2, 0]])
        assert nt.index_select_dim("features", []).feature_names == []

    def test_large_indices_stay_integers(self) -> None:
        # 2^24 + 1 is the first integer that float32 cannot hold
        n = 2**24 + 2
        long = NamedTensor(torch.arange(n).unsqueeze(1), ["ngrid", "features"], ["a"])
        assert long.index_select_tensor_dim("ngrid", [n - 1]).item() == 2**24 + 1

    def test_indices_that_are_none(self, nt: NamedTensor) -> None:
        with pytest.raises(ValueError, match=r"indices along 'lat' must be integers, not torch\.float32"):
            nt.index_select_dim("lat", torch.tensor([0.0]))
        with pytest.raises(IndexError, match=r"\[4\] along 'lat' must be within -4..3"):
            nt.index_select_dim("lat", [4])

    def test_iteration(self, nt: NamedTensor) -> None:
        rows = list(nt.iter_dim("lat"))
        assert len(rows) == 4
        assert rows[2] == nt.select_dim("lat", 2)
        planes = list(nt.iter_tensor_dim("features"))
        assert torch.equal(planes[1], nt.tensor[..., 1])


@pytest.mark.slow
def test_it_compiles_without_a_graph_break() -> None:
    def step(state: torch.Tensor, forcing: torch.Tensor) -> torch.Tensor:
        a = NamedTensor(state, NAMES, ["u", "v", "t"])
        b = NamedTensor(forcing, NAMES, ["q"])
        both = (a | b).rearrange_("batch lat lon features -> batch features lat lon")
        return both["q"] * 2 + both["u"]

    state, forcing = torch.randn(2, 4, 5, 3), torch.randn(2, 4, 5, 1)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(state, forcing), step(state, forcing))
