"""PyTorch's tensors come back as they were, over the memory they are handed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from apart import assert_lease, dumped, travelled

from parallelkit import arrays

torch = pytest.importorskip("torch")


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    assert type(other) is type(one)
    assert (other.dtype, other.shape) == (one.dtype, one.shape)
    assert (other.requires_grad, other.is_leaf) == (one.requires_grad, True)
    flat, copied = (each.detach().contiguous().reshape(-1) for each in (one, other))
    assert copied.view(torch.uint8).equal(flat.view(torch.uint8))


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("name", sorted(arrays._TENSORS))
def test_a_tensor_of_any_kind_comes_back(name, beside):
    cube = (torch.arange(24).reshape(2, 3, 4) % 2).to(getattr(torch, name))
    views = [cube, cube.permute(2, 0, 1), cube[:, ::2], cube[1:, 1:], cube[1, 1, 1]]
    views += [cube[None].expand(2, 2, 3, 4), cube[0].T[:, None]]

    for one in views:
        assert len(dumped(one, beside)[1]) == beside
        assert_same(one, travelled(one, beside))


def test_memory_without_gaps_is_not_copied_and_keeps_its_strides():
    images = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)

    frame, (buffer,) = dumped(images)
    owner = np.frombuffer(bytearray(buffer), "u1")
    copied = pickle.loads(frame, buffers=[owner])

    assert np.frombuffer(buffer, "u1").ctypes.data == images.data_ptr()
    assert copied.data_ptr() == owner.ctypes.data
    assert copied.stride() == images.stride()
    assert not copied._is_view()


def test_a_slice_does_not_bring_the_whole():
    _, (buffer,) = dumped(torch.rand(100, 100)[3])

    assert buffer.nbytes == 400


def test_leaves_and_modules_learn():
    leaf, layer = travelled((torch.ones(3, requires_grad=True), torch.nn.Linear(4, 4)))

    (leaf.sum() + layer(torch.ones(4)).sum()).backward()

    assert leaf.grad.tolist() == [1, 1, 1]
    assert layer.weight.grad is not None
    assert type(layer.weight) is torch.nn.Parameter


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3, requires_grad=True) * 2,
        lambda: torch.ones(3, dtype=torch.complex64).conj(),
        lambda: torch.ones(3, 0),
        lambda: torch.ones(3, device="meta"),
    ],
    ids=["reached", "conjugate", "empty", "meta"],
)
def test_others_go_as_torch_has_them(make):
    assert arrays.reducer(torch.Tensor)(make()) is NotImplemented
    assert travelled(make()).shape == make().shape


@pytest.mark.parametrize(
    "look", [lambda made: made[1], lambda made: made.numpy(), lambda made: made.T.detach()]
)
def test_the_owner_lives_as_long_as_a_tensor(look):
    shape = ((3, 4), (4, 1), False)

    assert_lease(lambda owner: arrays.rebuild_tensor(owner, "int64", *shape), look)


def test_the_owner_lives_as_long_as_a_tensor_over_an_array():
    assert_lease(lambda owner: arrays.rebuild(owner, np.dtype("i8"), (12,), "C"), torch.from_numpy)
