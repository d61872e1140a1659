"""Shapes, views and their memory, joining and splitting."""

import numpy as np
import pytest

import kilograd as kg

try:
    from tests.oracle.both import agree
except ImportError:
    agree = None

against_torch = pytest.mark.skipif(agree is None, reason="compares with PyTorch")
SETUP = (
    "x = T.arange(6.0).reshape(2, 3); z = T.tensor(3.0); L = T.arange(6).reshape(2, 3); m = x > 2; "
)

SHAPES = r"""
x.view()
x.reshape()
z.view()
z.permute()
x.permute()
z.expand()
z.repeat()
x.repeat()
x.repeat(2)
x.flip()
x.flip(0, 0)
T.reshape(x, 3, 2)
x.view(6.)
x.view(-1, -1)
x.view(4, 2)
x.t().view(6)
x.view(T.int32).shape
x.view(T.float64)
x.view(T.int8).shape
x.expand(4, 2, -1).shape
x.expand(-1, 2, 3)
x.expand(3)
x.expand(2, 4)
x.squeeze(5)
x.squeeze((0, 1)).shape
x.unsqueeze(5)
x.unsqueeze(-4)
x.transpose(0, 2)
x.permute(0, 0)
x.permute(0)
x.T.shape
z.T
T.ones(2, 3, 4).T.shape
z.mT
T.ones(3).mT
T.ones(3).H
T.ones(3).t()
T.ones(2, 2, 2).t()
x.split(0)
x.split(-1)
x.split([1, 2])
x.split([1, 1], 0)
z.split(1)
x.chunk(0)
x.chunk(5)
z.chunk(1)
T.cat([])
T.cat([x, z])
T.cat([x, L])
T.cat([x, T.ones(0)])
T.cat([x, T.ones(3, 3)], 1)
T.cat([x, 1])
T.cat(x)
T.stack([])
T.stack([x, x.t()])
T.stack([x, L]).dtype
x.unbind(2)
z.unbind()
T.hstack([])
x.roll(1)
x.roll((1, 2))
x.roll((1, 2), 0)
x.rot90(1, (0, 0))
T.meshgrid(T.ones(2), T.ones(3))
T.meshgrid(T.ones(2), L)
T.meshgrid(T.ones(2), T.ones(2).long())
x.narrow(0, 1, 3)
x.narrow(0, -1, 1)
x.narrow(0, T.tensor(1), 1)
x.select(0, 3)
z.select(0, 0)
x.unflatten(1, (2, 2))
x.unflatten(1, (-1, 1)).shape
x.flatten(1, 0)
z.flatten()
x.movedim(0, (1, ))
x.movedim((0, 1), (1, 0)).shape
x.movedim((0, 0), (1, 0))
x.unfold(1, 2, 1)
x.unfold(1, 4, 1)
x.unfold(1, 2, 0)
z.unfold(0, 1, 1)
x.as_strided((2, 2), (1, 1), 2)
x.as_strided((2, 2), (9, 1))
x.as_strided((2, 2), (-1, 1))
x.stride()
x.stride(0)
x.size(0)
x.size(5)
x.storage_offset()
x[1].storage_offset()
x.is_contiguous()
x.t().is_contiguous()
x.element_size()
x.dim()
x.nelement()
x.tile((2, ))
x.tile(2, 2).shape
x.repeat_interleave(2)
x.repeat_interleave(T.tensor([1, 2]), 0)
x.repeat_interleave(T.tensor([1, 2]), 1)
x.repeat_interleave(T.tensor([1., 2]), 0)
x.repeat_interleave(-1)
T.repeat_interleave(T.tensor([1, 2]))
T.broadcast_shapes((2, ), (3, 1), 1)
T.broadcast_shapes((2, ), (3, ))
T.broadcast_tensors(x, T.ones(4))
T.block_diag(x, z, T.ones(2))
T.block_diag(T.ones(1, 1, 1))
T.cartesian_prod(T.tensor([1, 2]))
T.cartesian_prod(T.tensor([1, 2]), T.tensor([3, 4]))
T.combinations(T.tensor([1, 2, 3]))
T.combinations(x)
T.column_stack([z, z])
T.atleast_2d(z, x)
T.atleast_1d([z])
x.tensor_split(2, 1)
x.tensor_split((1, 2), 1)
x.tensor_split(T.tensor([1]), 1)
x.hsplit(2)
x.hsplit(3)
z.hsplit(1)
x.vsplit(2)
x.dsplit(2)
x.fliplr()
T.ones(2).fliplr()
x.contiguous(memory_format=T.channels_last)
x.sum_to_size(1, 3)
x.view_as(T.ones(6)).shape
x.reshape_as(z)
x.swapaxes(0, 1).shape
x.ravel().shape
x.T.ravel()
x.diagonal()
x.diagonal(5)
T.ones(3).diagonal()
x.view((6, ))
x.view([6])
x.reshape(T.tensor(6))
x.reshape(T.tensor([6]))
x.view(True)
x.expand(T.tensor(4), 2, 3).shape
x.expand([4, 2, 3]).shape
x.permute([1, 0]).shape
x.permute(dims=(1, 0)).shape
x.reshape(shape=(6, )).shape
x.view(size=(6, )).shape
x.expand(size=(2, 3)).shape
x.repeat(repeats=(2, 2)).shape
x.flip(dims=(0, )).shape
x.tile(dims=(2, )).shape
T.flip(x, dims=(0, 1))
T.roll(x, shifts=1, dims=0)
T.unbind(x, dim=1)
T.transpose(x, dim0=0, dim1=1).shape
T.squeeze(input=x, dim=0).shape
T.unsqueeze(x, dim=0).shape
T.repeat_interleave(x, 2, dim=1)
T.repeat_interleave(x, repeats=T.tensor([1, 2]), dim=0, output_size=3)
T.tensor_split(x, 2, dim=1)
T.tensor_split(x, sections=2, dim=1)
T.tensor_split(x, indices=(1, ), dim=1)
T.split(x, 2, dim=1)
x.split(split_size=1)
x.split(1, dim=0)
T.chunk(x, chunks=2, dim=0)
T.movedim(x, source=0, destination=1).shape
"""


@against_torch
@pytest.mark.parametrize("code", SHAPES.strip().splitlines())
def test_shapes_as_pytorch(code):
    agree(SETUP + code)


VIEWS = r"""
y=x.t(); y[0, 1]=9.; x
y=x.reshape(-1); y[0]=9.; x
y=x.T; y.add_(1); x
y=x.view(3, 2); y.mul_(2); x
y=x.unsqueeze(0); y.zero_(); x
y=x.squeeze(); y.zero_(); x
y=x[0]; y.fill_(7); x
y=x.diagonal(); y.fill_(7); x
y=x.unfold(1, 2, 1); y[0, 0, 0]=5.; x
a, b=x.unbind(0); a.zero_(); x
a, b=x.split(1); b.add_(1); x
a, b, c=x.chunk(3, 1); c.mul_(0); x
y=x.narrow(1, 0, 2); y.fill_(1); x
y=x.select(1, 2); y.fill_(1); x
y=x.movedim(0, 1); y[0]=5.; x
y=x.expand(2, 3); y[0]=5.; x
y=x.flatten(); y[0]=5.; x
y=x.as_strided((2, ), (3, )); y.fill_(8); x
y=x.swapaxes(0, 1); y[0]=0.; x
y=x.unflatten(1, (3, 1)); y.zero_(); x
y=x.contiguous(); y.zero_(); x
y=x.t().contiguous(); y.zero_(); x
y=x.clone(); y.zero_(); x
y=x.detach(); y.zero_(); x
y=x.data; y.zero_(); x
y=x.view_as(x); y.zero_(); x
y=x.to(T.float32); y.zero_(); x
y=x.permute(1, 0); y.zero_(); x
y=x.repeat(1, 1); y.zero_(); x
y=x.tile(1); y.zero_(); x
y=x.roll(0); y.zero_(); x
y=x.flip(0); y.zero_(); x
y=x.repeat_interleave(1, 0); y.zero_(); x
y=x.rot90(0); y.zero_(); x
y=T.atleast_3d(x); y.zero_(); x
y=x.ravel(); y.zero_(); x
y=x.H; y.zero_(); x
y=x.mT; y.zero_(); x
y=x.diag(); y.zero_(); x
y, =T.broadcast_tensors(x); y.zero_(); x
y=x.reshape(2, 3); y.zero_(); x
y=T.narrow_copy(x, 0, 0, 1); y.zero_(); x
y=x.hsplit(3)[0]; y.zero_(); x
y=x.tensor_split((1, ), 1)[0]; y.zero_(); x
y=x.unsqueeze(0).expand(2, 2, 3); y.add_(1)
y=T.ones(3, 1).expand(3, 2); y.mul_(2)
y=T.ones(1).expand(3).clone(); y.mul_(2); y
y=T.meshgrid(T.arange(2.), T.arange(3.), indexing='ij')[0]; y.add_(1)
"""


@against_torch
@pytest.mark.parametrize("code", VIEWS.strip().splitlines())
def test_views_as_pytorch(code):
    agree(SETUP + code)


IN_PLACE = r"""
x.unsqueeze_(0).shape
x.unsqueeze_(0); x.squeeze_(0); x.shape
x.unsqueeze_(0); x._version
w=T.ones(2, requires_grad=True); y=T.exp(w); y.unsqueeze_(0); y.sum().backward(); w.grad
x.t_(); x
x.transpose_(0, 1); x
x.swapaxes_(0, 1).shape
y=x[0]; y.unsqueeze_(1); y.add_(1); x
x.squeeze_(); x.shape
x.resize_(3, 2); x
x.resize_(2); x
x.resize_as_(T.ones(3)); x
x.resize_(-1)
w=T.ones(2, 3, requires_grad=True); y=w*x; y.t_(); y.sum().backward(); w.grad
w=T.ones(2, 3, requires_grad=True); y=w*x; v=y[0]; v.unsqueeze_(0); v.mul_(3); y.sum().backward(); w.grad
w=T.ones(2, 3, requires_grad=True); w.t_()
w=T.ones(2, 3, requires_grad=True); w.unsqueeze_(0)
w=T.ones(2, 3, requires_grad=True); w.resize_(6)
w=T.ones(3, requires_grad=True); y=w*2; y.unsqueeze_(0); y.mul_(y.detach()); y.sum().backward(); w.grad
"""


@against_torch
@pytest.mark.parametrize("code", IN_PLACE.strip().splitlines())
def test_in_place_as_pytorch(code):
    agree(SETUP + code)


LAYOUT = r"""
x.size()
x.size(-1)
x.size(dim=1)
x.shape[0]
x.stride()
x.t().stride()
x[:, 1:].stride()
x[:, None].stride()
x.unsqueeze(1).stride()
x.unsqueeze(-1).stride()
x.unsqueeze(0).stride()
x.expand(5, 2, 3).stride()
x[:, :1].squeeze(1).stride()
x.t().reshape(2, 3).stride()
T.zeros(0, 3).stride()
T.zeros(2, 0).stride()
T.zeros(1, 1).stride()
x[1:].stride()
x[0:1].t().stride()
x[1, 1:].storage_offset()
x.t()[1:].storage_offset()
x.view(-1)[2:].view(2, 2).is_contiguous()
x.permute(1, 0).is_contiguous()
x[:, 1].is_contiguous()
x[:1].t().is_contiguous()
T.ones(2, 3, 4, 5).to(memory_format=T.channels_last).is_contiguous()
T.ones(2, 3, 4, 5).to(memory_format=T.channels_last).is_contiguous(memory_format=T.channels_last)
T.ones(2, 3, 4, 5).contiguous(memory_format=T.channels_last).stride()
x.data_ptr()==x.view(-1).data_ptr()
x.data_ptr()==x[1].data_ptr()
"""


@against_torch
@pytest.mark.parametrize("code", LAYOUT.strip().splitlines())
def test_layout_as_pytorch(code):
    agree(SETUP + code)


# --- facts ------------------------------------------------------------------------------------------


def test_flatten_of_a_vector_is_the_vector():
    x = kg.ones(3)
    assert x.flatten() is x
    assert x.contiguous() is x
    assert x.reshape(3) is not x


def test_view_refuses_what_only_a_copy_could_be():
    x = kg.arange(6).reshape(2, 3).t()
    with pytest.raises(RuntimeError, match="reshape"):
        x.view(6)
    assert x.reshape(6).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x.split(1)[0][0], lambda x: x.unbind(0)[0], lambda x: x.chunk(2)[0].squeeze(0),
        lambda x: x.tensor_split(2)[0].reshape(-1), lambda x: x[0], lambda x: x.t()[:, 0],
        lambda x: x.select(0, 0), lambda x: x.narrow(0, 0, 1).flatten(),
        lambda x: x.unfold(0, 1, 1)[0, :, 0], lambda x: x.as_strided((3,), (1,), 0),
        lambda x: x.view(-1)[:3], lambda x: x.movedim(0, 1).unbind(1)[0],
    ],
)  # fmt: skip
def test_writing_through_a_view_is_recorded(take):
    w = kg.ones(2, 3, requires_grad=True)
    y = w * kg.arange(6.0).reshape(2, 3)
    part = take(y)
    part.mul_(10)
    assert y.array[0].tolist() == [0, 10, 20]
    y.sum().backward()
    assert w.grad.tolist() == [[0, 10, 20], [3, 4, 5]]


def test_parts_of_a_split_follow_writes_into_the_whole():
    w = kg.ones(4, requires_grad=True)
    y = w * 2
    a, b = y.split(2)
    y.mul_(3)
    (a * b).sum().backward()
    assert w.grad.tolist() == [36, 36, 36, 36]


def test_split_gives_one_gradient_for_all_parts():
    x = kg.ones(6, requires_grad=True)
    parts = x.split(2)
    assert len({id(p.grad_fn.inputs[0]) for p in parts}) == 1
    (parts[0].sum() + 2 * parts[2].sum()).backward()
    assert x.grad.tolist() == [1, 1, 0, 0, 2, 2]


def test_a_part_made_under_no_grad_may_not_be_changed_with_grad():
    w = kg.ones(4, requires_grad=True)
    with kg.no_grad():
        a, _ = w.split(2)
    with pytest.raises(RuntimeError, match="no_grad"):
        a.mul_(w[:2])


def test_changing_shape_in_place_keeps_the_relation_to_the_base():
    w = kg.ones(2, 3, requires_grad=True)
    y = w * 1
    v = y[0]
    v.unsqueeze_(1)
    assert v.shape == (3, 1)
    v.mul_(5)
    y.sum().backward()
    assert w.grad.tolist() == [[5, 5, 5], [1, 1, 1]]


def test_a_view_of_what_changed_its_shape_in_place_is_found_out():
    w = kg.ones(2, 3, requires_grad=True)
    y = w * 2
    v = y[0]
    y.t_()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="take the view again"):
            v.sum()
    y.mul_(2)
    y[:, 0].sum().backward()
    assert w.grad.tolist() == [[4, 4, 4], [0, 0, 0]]


def test_a_resized_tensor_keeps_its_first_elements():
    x = kg.arange(6).resize_(2, 2)
    assert x.tolist() == [[0, 1], [2, 3]]
    assert x.resize_(6).tolist() == [0, 1, 2, 3, 4, 5]
    assert x.resize_(8)[:6].tolist() == [0, 1, 2, 3, 4, 5]


def test_strides_of_views_lead_to_the_right_elements():
    x = kg.arange(24).reshape(2, 3, 4)
    for y in (x, x.permute(2, 0, 1), x[:, 1:], x[..., ::2], x.unsqueeze(1), x.unfold(2, 2, 1)):
        again = x.as_strided(y.shape, y.stride(), y.storage_offset())
        assert again.tolist() == y.tolist()


def test_as_strided_shares_gradients_where_it_overlaps():
    x = kg.arange(4.0, requires_grad=True)
    x.as_strided((3, 2), (1, 1)).sum().backward()
    assert x.grad.tolist() == [1, 2, 2, 1]


def test_names_from_numpy():
    x = np.arange(6.0).reshape(2, 3)
    t = kg.from_numpy(x)
    np.testing.assert_array_equal(np.flip(t, (0,)).array, np.flip(x, 0))
    np.testing.assert_array_equal(np.stack([t, t], axis=1).array, np.stack([x, x], 1))
    np.testing.assert_array_equal(np.concatenate([t, t], axis=1).array, np.concatenate([x, x], 1))
    np.testing.assert_array_equal(np.transpose(t).array, x.T)
    np.testing.assert_array_equal(kg.flip(x, (1,)).array, np.flip(x, 1))
