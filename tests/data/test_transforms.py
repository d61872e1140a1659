"""Transforms against a loop over samples, PyTorch's arithmetic, and themselves under one seed."""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg
from kilograd.utils.data import DataLoader, Dataset, TensorDataset, TransformedDataset
from kilograd.utils.data.transforms import (
    Compose,
    GaussianNoise,
    Lambda,
    Normalize,
    OneHot,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Standardize,
    ToFloat,
)

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork, threads
rng = np.random.default_rng(0)


def images(*shape):
    return rng.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 6, 7), (2, 3, 6, 7), (), (0, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float64, bool])
@pytest.mark.parametrize("to", [kg.float32, kg.float64, kg.float16])
def test_to_float(shape, dtype, to):
    x = rng.integers(0, 2, shape).astype(dtype)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1
    got = ToFloat(to)(x)
    assert got.dtype == to.dtype and got.shape == shape
    np.testing.assert_allclose(got, (x.astype(np.float64) / top).astype(to.dtype), rtol=1e-6)
    np.testing.assert_array_equal(ToFloat(to, scale=False)(x), x.astype(to.dtype))


def test_tensors_give_tensors_and_arrays_arrays():
    x = images(2, 3, 4, 4)
    for t in (
        ToFloat(),
        RandomCrop(3),
        RandomHorizontalFlip(),
        Compose([ToFloat(), Normalize(0, 1)]),
    ):
        before = x.copy()
        assert type(t(x)) is np.ndarray
        out = t(kg.from_numpy(x))
        assert isinstance(out, kg.Tensor) and not out.requires_grad
        out.array[...] = 0
        np.testing.assert_array_equal(x, before)


def test_a_gradient_is_not_lost_in_silence():
    x = kg.rand(3, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="no derivative"):
        Normalize(0, 1)(x)


@pytest.mark.parametrize("bad", ["text", None, [object()], np.array(["a"]), np.ones(2, complex)])
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(TypeError, match="takes a tensor or an array"):
        ToFloat()(bad)


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "batched", "numbers", "view"),
    [
        ((5,), False, 5, (5,)), ((4, 5), False, 5, (5,)), ((4, 5), True, 5, (5,)),
        ((3, 6, 7), False, 3, (3, 1, 1)), ((2, 3, 6, 7), False, 3, (3, 1, 1)),
        ((2, 3, 6, 7), True, 3, (3, 1, 1)), ((2, 6, 7), True, 7, (7,)), ((4, 6, 7), True, 1, ()),
        ((4,), True, 1, ()), ((0, 5), True, 5, (5,)), ((), False, 1, ()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalize(shape, batched, numbers, view, dtype):
    x = rng.standard_normal(shape).astype(dtype)
    mean, std = rng.standard_normal(numbers), rng.random(numbers) + 0.5
    t = Normalize(mean, std)
    got = t.batch(x) if batched else t(x)
    assert got.dtype == dtype and got.shape == shape
    expected = (x - mean.reshape(view).astype(dtype)) / std.reshape(view).astype(dtype)
    np.testing.assert_array_equal(got, expected)
    if not (batched and x.ndim < 4):
        np.testing.assert_allclose(t.inverse(got), x, rtol=1e-5, atol=1e-6)


def test_normalize_mixes_a_number_and_a_sequence():
    x = rng.random((3, 2, 2))
    np.testing.assert_array_equal(
        Normalize(0.5, [1.0, 2.0, 4.0])(x), (x - 0.5) / np.array([1.0, 2.0, 4.0])[:, None, None]
    )


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Normalize(0, 0), ValueError, "std positive"),
        (lambda: Normalize([0, 0], [1, np.nan]), ValueError, "std positive"),
        (lambda: Normalize(np.inf, 1), ValueError, "finite"),
        (lambda: Normalize(np.zeros((2, 2)), 1), ValueError, "shapes"),
        (lambda: Normalize([0.0] * 4, 1)(np.zeros((3, 2, 2))), ValueError, "do not fit"),
        (lambda: Normalize(0, 1)(images(3, 3)), TypeError, "ToFloat"),
        (lambda: Normalize(0, 1).batch(np.float32(1)), ValueError, "at least one dimension"),
        (lambda: ToFloat(kg.int64), TypeError, "floating-point"),
        (lambda: OneHot(0), ValueError, "positive"),
        (lambda: OneHot(3)(np.array([0, 3])), ValueError, r"not all in \[0, 3\)"),
        (lambda: OneHot(3)(np.array(-1)), ValueError, "not all in"),
        (lambda: OneHot(3)(np.array([0.0])), TypeError, "integers"),
        (lambda: Standardize.fit(np.zeros((0, 3))), ValueError, "cannot measure"),
        (lambda: Standardize.fit(np.array([1.0, np.nan])), ValueError, "NaN"),
        (lambda: RandomCrop(0), ValueError, "size"),
        (lambda: RandomCrop((1, 2, 3)), ValueError, "size"),
        (lambda: RandomCrop(2, padding=-1), ValueError, "padding"),
        (lambda: RandomCrop(2, padding=(1, 2, 3)), ValueError, "padding"),
        (lambda: RandomCrop(2, padding_mode="wrap"), ValueError, "Padding mode"),
        (lambda: RandomCrop(5)(np.zeros((4, 9))), ValueError, "larger than"),
        (lambda: RandomCrop(5)(np.zeros(9)), ValueError, "takes images"),
        (lambda: RandomCrop(3, padding=2, fill=300)(images(4, 4)), ValueError, "fill=300.*uint8"),
        (lambda: RandomCrop(3, padding=2, fill=-1)(images(4, 4)), ValueError, "fill=-1.*uint8"),
        (lambda: RandomCrop(3, padding=2, fill=0.5)(images(4, 4)), ValueError, "fill=0.5.*uint8"),
        (lambda: RandomCrop(3, 2, fill=np.nan)(images(4, 4)), ValueError, "fill=nan.*uint8"),
        (lambda: RandomCrop(3, 2, fill=2)(np.ones((4, 4), bool)), ValueError, "fill=2.*bool"),
        (lambda: RandomCrop(3, 2, fill=1e6)(np.ones((4, 4), np.float16)), ValueError, "float16"),
        (lambda: RandomHorizontalFlip(1.5), ValueError, "probability"),
        (lambda: RandomHorizontalFlip()(np.zeros((1, 2, 3, 4, 5))), ValueError, "takes images"),
        (lambda: GaussianNoise(sigma=-1), ValueError, "sigma"),
        (lambda: GaussianNoise()(images(3)), TypeError, "floating-point"),
        (lambda: Compose([3]), TypeError, "functions"),
        (lambda: Lambda(3), TypeError, "callable"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("shape", [(50, 4), (20, 3, 5, 6), (30, 7, 8), (40,)])
@pytest.mark.parametrize("kind", [np.asarray, kg.from_numpy])
def test_standardize(shape, kind):
    x = rng.standard_normal(shape) * 5 + 3
    t = Standardize.fit(kind(x))
    z = np.asarray(t.batch(x))
    axes = {2: (0,), 4: (0, 2, 3)}.get(len(shape))
    np.testing.assert_allclose(z.mean(axis=axes), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=axes), 1, rtol=1e-12)
    assert t.mean.shape == ((shape[1],) if axes else ())


def test_standardize_centres_what_never_changes():
    x = np.full((10, 2), 0.1)
    x[:, 1] = np.arange(10)
    z = Standardize.fit(x)(x)
    np.testing.assert_allclose(z[:, 0], 0, atol=1e-15)
    assert np.isfinite(z).all()
    assert Standardize.fit(np.zeros((3, 1)))(np.ones((1, 1))).item() == 1
    assert Standardize.fit(images(9, 3)).mean.shape == (3,)  # integers can be measured


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_one_hot(shape):
    y = rng.integers(0, 5, shape)
    got = OneHot(5)(y)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.eye(5, dtype=np.float32)[y])
    assert OneHot(5)(3).tolist() == [0, 0, 0, 1, 0]
    assert OneHot(5, kg.int64)(kg.tensor(3)).dtype == kg.int64


# --- random ones --------------------------------------------------------------------------------

RANDOM = {
    "crop": lambda **g: RandomCrop(5, padding=2, **g),
    "flip": lambda **g: RandomHorizontalFlip(**g),
    "vertical": lambda **g: RandomVerticalFlip(**g),
    "noise": lambda **g: GaussianNoise(0.1, 0.5, clip=False, **g),
    "all": lambda **g: Compose([RandomCrop(5, **g), RandomHorizontalFlip(**g), GaussianNoise(**g)]),
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("shape", [(6, 7), (3, 6, 7), (8, 3, 6, 7)])
def test_the_seed_decides(name, shape):
    x = rng.random(shape).astype(np.float32)
    t = RANDOM[name]()
    kg.manual_seed(1)
    first, second = t(x), t(x)
    kg.manual_seed(1)
    np.testing.assert_array_equal(t(x), first)
    np.testing.assert_array_equal(t(x), second)
    own = [RANDOM[name](generator=kg.Generator().manual_seed(4)) for _ in range(2)]
    state = kg.get_rng_state()
    for _ in range(3):
        np.testing.assert_array_equal(own[0](x), own[1](x))
    np.testing.assert_array_equal(kg.get_rng_state(), state)  # the default one is left alone
    assert first.dtype == np.float32 and np.isfinite(first).all()


@pytest.mark.parametrize("shape", [(200, 3, 6, 7), (200, 6, 7)])
def test_each_image_of_a_batch_is_flipped_by_itself_and_whole(shape):
    x = rng.random(shape)
    for t, axis in ((RandomHorizontalFlip(0.3), -1), (RandomVerticalFlip(0.3), -2)):
        got = t.batch(x)
        flipped = [np.array_equal(a, np.flip(b, axis)) for a, b in zip(got, x, strict=True)]
        kept = [np.array_equal(a, b) for a, b in zip(got, x, strict=True)]
        assert all(f != k for f, k in zip(flipped, kept, strict=True))
        assert 30 < sum(flipped) < 90  # 60, σ = 6.5
        np.testing.assert_array_equal(type(t)(0.0).batch(x), x)
        np.testing.assert_array_equal(type(t)(1.0).batch(x), np.flip(x, axis))


@pytest.mark.parametrize("padding", [None, 0, 1, (2, 1), (0, 1, 2, 3)])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("size", [4, (3, 5), (6, 7)])
def test_crops_are_pieces_of_the_padded_image(padding, mode, size):
    x = rng.random((60, 2, 6, 7))
    t = RandomCrop(size, padding, padding_mode=mode)
    got = t.batch(x)
    height, width = (size, size) if isinstance(size, int) else size
    assert got.shape == (60, 2, height, width)
    left, top, right, bottom = {
        None: (0,) * 4, 0: (0,) * 4, 1: (1,) * 4, (2, 1): (2, 1, 2, 1), (0, 1, 2, 3): (0, 1, 2, 3)
    }[padding]  # fmt: skip
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), mode=mode)
    places = set()
    for image, piece in zip(padded, got, strict=True):
        found = [
            (i, j)
            for i in range(padded.shape[2] - height + 1)
            for j in range(padded.shape[3] - width + 1)
            if np.array_equal(image[:, i : i + height, j : j + width], piece)
        ]
        assert found
        places.add(found[0])
    possible = (padded.shape[2] - height + 1) * (padded.shape[3] - width + 1)
    assert len(places) >= min(possible, 8) * 0.7


def test_crop_pads_what_is_too_small_and_fills():
    got = RandomCrop(4, pad_if_needed=True, fill=9)(np.zeros((1, 2, 3)))
    assert got.shape == (1, 4, 4)
    assert set(np.unique(got)) == {0.0, 9.0}
    assert RandomCrop(3).batch(np.zeros((0, 2, 5, 5))).shape == (0, 2, 3, 3)


@pytest.mark.parametrize(
    ("fill", "dtype"),
    [(255, np.uint8), (7.0, np.uint8), (-1, np.int16), (0.1, np.float32), (np.nan, np.float16),
     (-np.inf, np.float32), (1, bool), (True, np.uint8)],
)  # fmt: skip
def test_what_crops_are_filled_with(fill, dtype):
    (corner,) = RandomCrop(1, pad_if_needed=True, padding=(1, 0, 0, 0), fill=fill).batch(
        np.zeros((1, 1, 0), dtype)
    )
    np.testing.assert_array_equal(corner, np.asarray([[fill]]).astype(dtype))
    assert corner.dtype == dtype
    RandomCrop(3, padding_mode="edge", fill=0.5)(images(4, 4))  # nothing is filled


def test_noise_has_its_moments_and_its_bounds():
    x = np.full(100_000, 0.5)
    noise = GaussianNoise(0.2, 0.3, clip=False)(x) - x
    assert abs(noise.mean() - 0.2) < 0.005 and abs(noise.std() - 0.3) < 0.005
    clipped = GaussianNoise(sigma=5.0)(x)
    assert clipped.min() == 0 and clipped.max() == 1
    np.testing.assert_array_equal(GaussianNoise(sigma=0.0)(x), x)


# --- together -----------------------------------------------------------------------------------


def test_compose_calls_plain_functions_for_each_sample_and_lambda_for_all():
    seen = []

    def plain(x):
        seen.append(x.shape)
        return x + 1

    x = rng.random((4, 3, 5, 5))
    t = Compose([plain, Lambda(lambda x: seen.append(x.shape) or x * 2)])
    np.testing.assert_array_equal(t.batch(x), (x + 1) * 2)
    assert [tuple(s) for s in seen] == [(3, 5, 5)] * 4 + [(4, 3, 5, 5)]
    seen.clear()
    np.testing.assert_array_equal(t(x[0]), (x[0] + 1) * 2)
    assert [tuple(s) for s in seen] == [(3, 5, 5)] * 2
    assert repr(Normalize(0.5, 1)) == "Normalize(mean=array(0.5), std=array(1.))"


class OneByOne(Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i]


def coloured(n=13):
    return TensorDataset(kg.from_numpy(images(n, 3, 8, 8)), kg.arange(n) % 4)


@pytest.mark.parametrize("wrap", [lambda d: d, OneByOne], ids=["gathers", "one by one"])
def test_a_loader_transforms_whole_batches(wrap):
    calls = []

    class Counted(ToFloat):
        def apply(self, x, batched):
            calls.append((x.shape, batched))
            return super().apply(x, batched)

    data = coloured()
    both = TransformedDataset(wrap(data), Compose([Counted(), Normalize(0.5, 0.25)]), OneHot(4))
    batches = list(DataLoader(both, 5))
    assert calls == [((5, 3, 8, 8), True)] * 2 + [((3, 3, 8, 8), True)]
    x = np.concatenate([b[0].array for b in batches])
    samples = [both[i] for i in range(13)]
    np.testing.assert_array_equal(x, np.stack([s[0].array for s in samples]))
    np.testing.assert_array_equal(
        np.concatenate([b[1].array for b in batches]), np.eye(4)[np.arange(13) % 4]
    )
    own = DataLoader(both, 13, collate_fn=lambda s: np.stack([x.array for x, _ in s]))
    np.testing.assert_array_equal(next(iter(own)), x)


def test_plain_functions_get_samples():
    data = TensorDataset(kg.arange(6).reshape(6, 1), kg.arange(6))
    changed = TransformedDataset(data, lambda x: x * 10, lambda y: {0: 5}.get(y.item(), y.item()))
    (x, y), *_ = DataLoader(changed, 6)
    assert x.tolist() == [[0], [10], [20], [30], [40], [50]]
    assert y.tolist() == [5, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("samples", "transform", "target_transform"),
    [
        ([([0.5, 1.5], 0), ([2.5, 3.5], 1)], Normalize(0.5, 2.0), None),
        ([([0.5, 1.5, 2.5], 0), ([2.5, 3.5, 4.5], 1)], Normalize(0.5, 2.0), None),
        ([(np.ones(2), [0, 2]), (np.zeros(2), [1, 1])], None, OneHot(3)),
        ([(np.uint8([255]), 0), (np.float32([255]), 0)], ToFloat(), None),
        ([(0.5, 1), (1.5, 2)], Normalize(0.5, 2.0), OneHot(3)),
        ([np.float32(1), np.float32(2)], Normalize(1.0, 2.0), None),
        ([[1.0, 2.0], [3.0, 4.0]], Normalize(1.0, 2.0), None),
        ([(np.ones((2, 3, 4, 4)), 0)] * 2, Normalize([1.0, 2.0, 3.0], 2.0), None),
        ([([0.5, 1.5], 0)] * 2, Compose([Normalize(0.5, 2.0), ToFloat()]), None),
        ([(np.ones(2), 0)] * 2, Compose([np.ndarray.tolist, Normalize(0.5, 2.0)]), None),
        ([(np.ones(2), 0)] * 2, Compose([Compose([np.ndarray.copy]), ToFloat()]), None),
    ],
)
def test_batches_are_what_samples_would_be(samples, transform, target_transform):
    data = TransformedDataset(samples, transform, target_transform)
    if isinstance(samples[0], (tuple, list)) and len(samples[0]) > 1 and samples[0] != [1.0, 2.0]:
        (got,) = DataLoader(data, 2)
        for part, expected in zip(got, zip(data[0], data[1], strict=True), strict=True):
            np.testing.assert_array_equal(part.numpy(), np.stack(expected))
            assert part.numpy().dtype == np.stack(expected).dtype
    else:
        (got,), (expected,) = DataLoader(data, 2), DataLoader([data[0], data[1]], 2)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def test_images_of_several_sizes_can_be_cropped():
    sizes = [(8, 9), (5, 7), (6, 6), (6, 6)]
    loaded = []

    class Pictures(OneByOne):
        def __getitem__(self, i):
            loaded.append(i)
            return images(3, *self.data[i]), i

    crop = Compose([RandomCrop(5), ToFloat()])
    odd, even = DataLoader(TransformedDataset(Pictures(sizes), crop), 2)
    for x, y in (odd, even):
        assert tuple(x.shape) == (2, 3, 5, 5) and x.dtype == kg.float32 and len(y) == 2
    assert loaded == [0, 1, 2, 3]  # each once
    plain = Compose([lambda x: x[:, :, : x.shape[1]], RandomCrop(5)])
    (x, _), _ = DataLoader(TransformedDataset(Pictures(sizes), plain), 2)
    assert tuple(x.shape) == (2, 3, 5, 5)
    with pytest.raises(RuntimeError, match="collate_fn"):
        list(DataLoader(TransformedDataset(Pictures(sizes), ToFloat()), 2))


def test_a_plain_function_may_make_lists_and_several_sizes():
    x = rng.random((3, 4))
    t = Compose([Normalize(0.0, 2.0), np.ndarray.tolist, Normalize(0.5, 1.0)])
    np.testing.assert_array_equal(t.batch(x), x / 2 - 0.5)
    cuts = iter([2, 3, 4])
    t = Compose([lambda s: s[: next(cuts)], lambda s: s[:2], lambda s: s * 2])
    np.testing.assert_array_equal(t.batch(x), x[:, :2] * 2)
    assert t.batch(x[:0]).shape == (0, 4)


def test_datasets_without_targets():
    data = OneByOne(kg.arange(4).reshape(4, 1))
    (x,) = DataLoader(TransformedDataset(data, ToFloat(scale=False)), 4)
    assert x.dtype == kg.float32
    with pytest.raises(TypeError, match="no target"):
        TransformedDataset(data, target_transform=OneHot(4))[0]


@pytest.mark.parametrize(
    "how", [{}, {"num_workers": 2}, {"num_workers": 2, "worker_type": "thread"}]
)
@pytest.mark.parametrize("own", [False, True])
def test_random_transforms_in_workers_are_repeatable_and_differ(how, own):
    def epoch():
        kg.manual_seed(2)
        generator = kg.Generator().manual_seed(6) if own else None
        same = TensorDataset(kg.zeros(8, 4))
        noisy = TransformedDataset(same, GaussianNoise(clip=False, generator=generator))
        loader = DataLoader(noisy, 2, **how)
        return np.concatenate([b[0].array for _ in range(2) for b in loader])

    first = epoch()
    np.testing.assert_array_equal(epoch(), first)
    assert len(np.unique(first)) == first.size  # no worker and no epoch repeats another
