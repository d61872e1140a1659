import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import kilograd as kg
from tests.nn.compare import close, same

F, T = kg.nn.functional, torch.nn.functional


@pytest.fixture
def rng():
    return np.random.default_rng(0)


MODES = [
    (1, "nearest"), (1, "nearest-exact"), (1, "area"), (1, "linear"), (2, "nearest"), (2, "nearest-exact"),
    (2, "area"), (2, "bilinear"), (2, "bicubic"), (3, "nearest"), (3, "nearest-exact"), (3, "area"), (3, "trilinear"),
]  # fmt: skip


@pytest.mark.parametrize(("n", "mode"), MODES)
def test_interpolate(rng, n, mode):
    x = rng.standard_normal((2, 3, 5, 4, 6)[: n + 2])
    corners = (None,) if mode in ("nearest", "nearest-exact", "area") else (None, True, False)
    for align in corners:
        for how in ({"size": 7}, {"size": (3, 8, 2)[:n]}, {"scale_factor": 1.7}, {"scale_factor": 0.6},
                    {"scale_factor": (2.0, 1.3, 0.8)[:n]}, {"scale_factor": 1.7, "recompute_scale_factor": True}):  # fmt: skip
            same(F.interpolate, T.interpolate, x, mode=mode, align_corners=align, second=True, rtol=1e-5,
                 atol=1e-8, **how)  # fmt: skip


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialias_and_bytes(rng, mode):
    x = rng.standard_normal((1, 2, 9, 8))
    same(
        F.interpolate,
        T.interpolate,
        x,
        size=(4, 5),
        mode=mode,
        antialias=True,
        rtol=1e-5,
        atol=1e-8,
    )
    image = rng.integers(0, 256, (1, 3, 17, 11)).astype(np.uint8)
    for size in ((9, 20), (17, 5), (40, 40)):
        same(F.interpolate, T.interpolate, image, size=size, mode=mode)


def test_interpolate_refuses():
    x = kg.ones(1, 1, 4, 4)
    for options, error in [
        ({}, ValueError), ({"size": 3, "scale_factor": 2}, ValueError), ({"size": (3, 3, 3)}, ValueError),
        ({"size": 3, "align_corners": True}, ValueError), ({"size": 3, "mode": "linear"}, NotImplementedError),
        ({"size": 3, "mode": "quintic"}, NotImplementedError), ({"size": 0}, RuntimeError),
        ({"size": 3, "antialias": True}, ValueError), ({"size": 2.5}, TypeError),
    ]:  # fmt: skip
        with pytest.raises(error):
            F.interpolate(x, **options)


def test_upsample_names(rng):
    x = rng.standard_normal((1, 2, 3, 4))
    for name in ("upsample", "upsample_nearest", "upsample_bilinear"):
        assert tuple(getattr(F, name)(kg.tensor(x), scale_factor=2).shape) == (1, 2, 6, 8)


@pytest.mark.parametrize(
    ("n", "mode"),
    [(2, "bilinear"), (2, "nearest"), (2, "bicubic"), (3, "bilinear"), (3, "nearest")],
)
def test_grid_sample(rng, n, mode):
    x = rng.standard_normal((2, 3, 5, 4, 6)[: n + 2])
    grid = rng.uniform(-1.4, 1.4, (2, 4, 3, 2)[: n + 1] + (n,))
    for padding, align in itertools.product(("zeros", "border", "reflection"), (True, False)):
        same(F.grid_sample, T.grid_sample, x, grid, mode=mode, padding_mode=padding, align_corners=align,
             second=n == 2 and mode == "bilinear", rtol=1e-5, atol=1e-7)  # fmt: skip


def test_grid_sample_at_the_corners_and_nowhere():
    x = kg.arange(9.0).reshape(1, 1, 3, 3)
    grid = kg.tensor([[[[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [5.0, 0.0]]]])
    assert F.grid_sample(x, grid, align_corners=True).tolist() == [[[[0.0, 8.0, 4.0, 0.0]]]]
    with pytest.warns(UserWarning, match="align_corners"):
        F.grid_sample(x, grid)
    with pytest.raises(RuntimeError, match="batch size"):
        F.grid_sample(x, kg.ones(2, 1, 1, 2), align_corners=True)
    with pytest.raises(ValueError, match="mode"):
        F.grid_sample(x, grid, mode="cubic", align_corners=True)


def test_affine_grid(rng):
    for align in (True, False):
        same(
            F.affine_grid,
            T.affine_grid,
            rng.standard_normal((2, 2, 3)),
            size=(2, 1, 4, 5),
            align_corners=align,
        )
        same(
            F.affine_grid,
            T.affine_grid,
            rng.standard_normal((2, 3, 4)),
            size=(2, 1, 3, 4, 5),
            align_corners=align,
        )
    with pytest.raises(ValueError, match="Nx2x3"):
        F.affine_grid(kg.ones(2, 2, 2), (2, 1, 4, 5), False)


def test_shuffles(rng):
    x = rng.standard_normal((2, 8, 3, 4))
    same(F.pixel_shuffle, T.pixel_shuffle, x, upscale_factor=2)
    same(F.pixel_shuffle, T.pixel_shuffle, x[0], upscale_factor=2)
    same(
        F.pixel_unshuffle, T.pixel_unshuffle, rng.standard_normal((2, 3, 4, 6)), downscale_factor=2
    )
    same(F.channel_shuffle, T.channel_shuffle, x, groups=4)
    with pytest.raises(RuntimeError, match="divisible"):
        F.pixel_shuffle(kg.ones(1, 3, 2, 2), 2)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad(rng, mode):
    for shape, pads in [
        ((2, 3, 5), (1, 2)), ((3, 5), (2, 0)), ((2, 3, 5, 4), (1, 2, 3, 0)), ((3, 5, 4), (0, 1, 2, 2)),
        ((2, 3, 4, 5, 4), (1, 0, 2, 1, 1, 3)), ((2, 3, 5, 4), (-1, 2, 0, -2)), ((2, 3, 5), (-1, -1)),
    ]:  # fmt: skip
        x = rng.standard_normal(shape)
        same(F.pad, T.pad, x, pad=pads, mode=mode, second=True)
    x = rng.standard_normal((2, 3))
    same(F.pad, T.pad, x, pad=(1, 1, 2, 0), value=-1.5)
    same(F.pad, T.pad, x, pad=())


def test_pad_refuses():
    x = kg.ones(2, 3, 4)
    for pads, options, error in [
        ((1,), {}, RuntimeError), ((1,) * 8, {}, RuntimeError), ((4, 0), {"mode": "reflect"}, RuntimeError),
        ((5, 0), {"mode": "circular"}, RuntimeError), ((1, 1), {"mode": "mirror"}, NotImplementedError),
        ((1, 1, 1, 1, 1, 1), {"mode": "reflect"}, NotImplementedError), ((-3, -2), {}, RuntimeError),
    ]:  # fmt: skip
        with pytest.raises(error):
            F.pad(x, pads, **options)


def test_empty_output_of_pad():
    close(F.pad(kg.ones(2, 3), (-1, -2)), T.pad(torch.ones(2, 3), (-1, -2)))
