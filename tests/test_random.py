"""The random numbers are PyTorch's, bit for bit, and the generator ends where PyTorch's ends."""

import copy
import math
import pickle
import platform
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest

from kilograd import random as kr

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["uint8", "int8", "int16", "int32", "int64"]
SIZES = [
    0,
    1,
    2,
    15,
    16,
    17,
    31,
    32,
    33,
    1000,
    16384,
    16389,
    100003,
    (3, 5),
    (16, 2),
    (7, 9, 3),
    (2, 0),
    (),
]
SEEDS = [0, 1, 42, -5, 2**31, 2**32, 2**40 + 3, 2**64 - 1, -(2**63)]


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    if platform.machine() not in ("x86_64", "AMD64") or not sys.platform.startswith("linux"):
        pytest.skip("the reference is PyTorch on x86-64 with glibc")
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("the reference is PyTorch's AVX2 code")
    return torch


class Pair:
    """One generator of each library, kept in step."""

    def __init__(self, torch, seed):
        self.torch = torch
        self.ours = kr.Generator().manual_seed(seed)
        self.theirs = torch.Generator().manual_seed(seed)

    def empty(self, size, dtype="float32"):
        size = (size,) if isinstance(size, int) else size
        return self.torch.empty(size, dtype=getattr(self.torch, dtype))

    def check(self, ours, theirs, what=None):
        theirs = theirs.numpy()
        assert ours.dtype == theirs.dtype, what
        np.testing.assert_array_equal(ours, theirs, strict=True, err_msg=str(what))
        np.testing.assert_array_equal(
            self.ours.get_state(), self.theirs.get_state().numpy(), err_msg=str(what)
        )


@pytest.fixture
def pair(torch):
    return Pair(torch, 1234)


# name: (ours(g, size, dtype), theirs(empty tensor, generator))
FLOAT_DRAWS = {
    "rand": (
        lambda g, n, d: kr.uniform(g, n, dtype=d),
        lambda e, t: e.uniform_(generator=t),
    ),
    "uniform": (
        lambda g, n, d: kr.uniform(g, n, -0.3, 1.7, d),
        lambda e, t: e.uniform_(-0.3, 1.7, generator=t),
    ),
    "randn": (
        lambda g, n, d: kr.normal(g, n, dtype=d),
        lambda e, t: e.normal_(generator=t),
    ),
    "normal std": (
        lambda g, n, d: kr.normal(g, n, 0.0, 0.02, d),
        lambda e, t: e.normal_(0.0, 0.02, generator=t),
    ),
    "normal mean": (
        lambda g, n, d: kr.normal(g, n, 0.3, 1.0, d),
        lambda e, t: e.normal_(0.3, 1.0, generator=t),
    ),
    "normal": (
        lambda g, n, d: kr.normal(g, n, 0.1, 0.7, d),
        lambda e, t: e.normal_(0.1, 0.7, generator=t),
    ),
    "exponential": (
        lambda g, n, d: kr.exponential(g, n, 1.3, d),
        lambda e, t: e.exponential_(1.3, generator=t),
    ),
    "cauchy": (
        lambda g, n, d: kr.cauchy(g, n, 0.2, 1.3, d),
        lambda e, t: e.cauchy_(0.2, 1.3, generator=t),
    ),
    "log_normal": (
        lambda g, n, d: kr.log_normal(g, n, 0.2, 0.4, d),
        lambda e, t: e.log_normal_(0.2, 0.4, generator=t),
    ),
    "geometric": (
        lambda g, n, d: kr.geometric(g, n, 0.2, d),
        lambda e, t: e.geometric_(0.2, generator=t),
    ),
    "bernoulli": (
        lambda g, n, d: kr.bernoulli(g, 0.3, n, d),
        lambda e, t: e.bernoulli_(0.3, generator=t),
    ),
    "random": (
        lambda g, n, d: kr.full_range_integers(g, n, d),
        lambda e, t: e.random_(generator=t),
    ),
    "randint": (
        lambda g, n, d: kr.random_integers(g, -3, 100, n, d),
        lambda e, t: e.random_(-3, 100, generator=t),
    ),
}

INTEGER_DRAWS = {
    "random": (
        lambda g, n, d: kr.full_range_integers(g, n, d),
        lambda e, t: e.random_(generator=t),
    ),
    "randint": (
        lambda g, n, d: kr.random_integers(g, 3, 101, n, d),
        lambda e, t: e.random_(3, 101, generator=t),
    ),
    "from": (
        lambda g, n, d: kr.random_integers(g, 1, None, n, d),
        lambda e, t: e.random_(1, None, generator=t),
    ),
    "geometric": (
        lambda g, n, d: kr.geometric(g, n, 0.4, d),
        lambda e, t: e.geometric_(0.4, generator=t),
    ),
    "bernoulli": (
        lambda g, n, d: kr.bernoulli(g, 0.3, n, d),
        lambda e, t: e.bernoulli_(0.3, generator=t),
    ),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FLOAT_DRAWS)
def test_floating_draws_are_pytorchs(pair, name, dtype):
    ours, theirs = FLOAT_DRAWS[name]
    for size in SIZES:  # in one stream, so that each draw starts where the last one ended
        drawn = ours(pair.ours, size, dtype)
        pair.check(drawn, theirs(pair.empty(size, dtype), pair.theirs), size)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", INTEGER_DRAWS)
def test_integer_draws_are_pytorchs(pair, name, dtype):
    ours, theirs = INTEGER_DRAWS[name]
    for size in SIZES:
        drawn = ours(pair.ours, size, dtype)
        pair.check(drawn, theirs(pair.empty(size, dtype), pair.theirs), size)


@pytest.mark.parametrize("seed", SEEDS)
def test_draws_of_every_kind_in_one_stream(torch, seed):
    pair = Pair(torch, seed)
    g, t = pair.ours, pair.theirs
    f64 = torch.float64
    for _ in range(3):
        pair.check(kr.normal(g, 3), torch.randn(3, generator=t), "randn(3)")
        pair.check(kr.uniform(g, 5), torch.rand(5, generator=t), "rand(5)")
        pair.check(kr.normal(g, 17), torch.randn(17, generator=t), "randn(17)")
        drawn = kr.random_integers(g, 0, 10, (2, 3))
        pair.check(drawn, torch.randint(10, (2, 3), generator=t), "randint")
        pair.check(kr.permutation(g, 7), torch.randperm(7, generator=t), "randperm")
        drawn = kr.normal(g, 6, dtype="float64")  # begins with the number waiting since randn(3)
        pair.check(drawn, torch.randn(6, dtype=f64, generator=t), "randn float64")
        drawn = kr.normal(g, 40, dtype="float64")
        pair.check(drawn, torch.randn(40, dtype=f64, generator=t), "randn(40) float64")
        drawn = kr.log_normal(g, 3)
        pair.check(drawn, torch.empty(3).log_normal_(generator=t), "log_normal")
        pair.check(kr.bernoulli(g, 0.5, 700), torch.empty(700).bernoulli_(0.5, generator=t))


def test_two_million_normal_numbers(torch):
    pair = Pair(torch, 3)
    pair.check(kr.normal(pair.ours, 2_000_003), torch.randn(2_000_003, generator=pair.theirs))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers(pair, dtype):
    kind = getattr(pair.torch, dtype)
    for size in (1, 7, 8, 9, 100, (3, 4), 0):
        drawn = kr.uniform(pair.ours, size, dtype=dtype)
        pair.check(drawn, pair.torch.rand(size, dtype=kind, generator=pair.theirs))
        drawn = kr.normal(pair.ours, size, dtype=dtype)
        pair.check(drawn, pair.torch.randn(size, dtype=kind, generator=pair.theirs))


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 1),
        (0, 2**28 - 1),
        (0, 2**28),
        (-7, 2**28 - 8),
        (-7, 2**28 - 7),
        (5, 2**32),
        (0, 2**32 + 1),
        (-(2**62), 2**62),
        (-(2**63), 2**63 - 1),
    ],
)
def test_randint_ranges(pair, low, high):
    theirs = pair.torch.randint(low, high, (500,), generator=pair.theirs)
    pair.check(kr.random_integers(pair.ours, low, high, 500), theirs)


def test_all_of_int64(pair):
    ours = kr.random_integers(pair.ours, -(2**63), None, 100)
    pair.check(ours, pair.empty(100, "int64").random_(-(2**63), None, generator=pair.theirs))


def test_booleans(pair):
    ours = kr.full_range_integers(pair.ours, 100, bool)
    pair.check(ours, pair.empty(100, "bool").random_(generator=pair.theirs))
    ours = kr.random_integers(pair.ours, 0, 2, 100, bool)
    pair.check(ours, pair.empty(100, "bool").random_(0, 2, generator=pair.theirs))
    ours = kr.bernoulli(pair.ours, 0.7, 100, bool)
    pair.check(ours, pair.empty(100, "bool").bernoulli_(0.7, generator=pair.theirs))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 511, 512, 513, 2000, 60000, 100003])
def test_permutations(pair, n):
    for dtype in ("int64", "int32", "float32", "float64"):
        ours = kr.permutation(pair.ours, n, dtype)
        kind = getattr(pair.torch, dtype)
        pair.check(ours, pair.torch.randperm(n, dtype=kind, generator=pair.theirs), dtype)


def test_swaps_all_at_once_are_swaps_one_by_one():
    draw = np.random.RandomState(0)
    for n in (512, 600, 1000):
        for spread in (1, 2, 5, n):  # many steps with one partner, many chains
            partner = np.arange(n) + draw.randint(0, 10**6, n) % np.minimum(
                spread, np.arange(n, 0, -1)
            )
            one_by_one = list(range(n))
            for i, k in enumerate(partner):
                one_by_one[i], one_by_one[k] = one_by_one[k], one_by_one[i]
            np.testing.assert_array_equal(kr._after_swaps(partner), one_by_one)


@pytest.mark.parametrize("dtype", FLOATS)
def test_bernoulli_of_an_array_of_probabilities(pair, dtype):
    p = kr.uniform(kr.Generator(), (30, 40), dtype=dtype)
    p[0], p[1] = 0, 1
    theirs = pair.torch.from_numpy(p)
    drawn = kr.bernoulli(pair.ours, p)
    pair.check(drawn, pair.torch.bernoulli(theirs, generator=pair.theirs))
    assert not drawn[0].any()
    assert drawn[1].all()
    drawn = kr.bernoulli(pair.ours, p, (2, 30, 40), np.int64)
    pair.check(drawn, pair.empty((2, 30, 40), "int64").bernoulli_(theirs, generator=pair.theirs))


@pytest.mark.parametrize("p", [0.0, 1.0, 0.5, 1e-9, 1 - 1e-9, 2.0**-22, 2.0**-21, 0.1])
def test_bernoulli_of_extreme_probabilities(pair, p):
    drawn = kr.bernoulli(pair.ours, p, 20000)
    pair.check(drawn, pair.empty(20000).bernoulli_(p, generator=pair.theirs))


def test_bernoulli_decides_by_the_low_word_where_the_high_word_is_undecided(monkeypatch):
    high, low = 5, 1000
    words = np.array([high, low - 1, high, low, high - 1, 0, high + 1, 0], np.uint32)
    g = kr.Generator()
    monkeypatch.setattr(g, "_words", lambda n: words)
    p = (high * 2**32 + low) / 2**53
    assert kr.bernoulli(g, p, 4).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout_is_pytorchs(torch, p, dtype):
    x = kr.normal(kr.Generator(), (64, 33), dtype=dtype)
    with torch.random.fork_rng(devices=[]), kr.fork_rng():
        torch.manual_seed(9)
        kr.manual_seed(9)
        theirs = torch.nn.functional.dropout(torch.from_numpy(x), p).numpy()
        np.testing.assert_array_equal(x * kr.dropout_mask(None, x.shape, p, dtype), theirs)
        np.testing.assert_array_equal(kr.get_rng_state(), torch.get_rng_state().numpy())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (0.0, 1.5), (1.0, 2.5), (-0.01, 0.02), (3.0, 4.0)])
def test_truncated_normal_numbers(pair, bounds, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # (3, 4) is far from the mean, and both say so
        for size in (0, 1, 15, 33, (40, 50)):
            drawn = kr.trunc_normal(pair.ours, size, 0.1, 0.9, *bounds, dtype)
            theirs = pair.torch.nn.init.trunc_normal_(
                pair.empty(size, dtype), 0.1, 0.9, *bounds, generator=pair.theirs
            )
            pair.check(drawn, theirs, size)


def test_truncated_normal_numbers_far_from_the_mean_warn():
    with pytest.warns(UserWarning, match="mean is more than 2 std"):
        kr.trunc_normal(None, 2, 0.0, 1.0, 3.0, 4.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("shape", [(50,), (6, 50), (0, 50)])
def test_multinomial(pair, shape, replacement, dtype):
    p = kr.uniform(kr.Generator(), shape, dtype=dtype)
    p[..., 3:9] = 0
    for k in (1, 2, 7, 40):
        drawn = kr.multinomial(pair.ours, p, k, replacement)
        theirs = pair.torch.from_numpy(p)
        pair.check(drawn, pair.torch.multinomial(theirs, k, replacement, generator=pair.theirs), k)
    if not replacement and shape == (50,):
        assert sorted(kr.multinomial(pair.ours, p + 1, 50)) == list(range(50))


def test_multinomial_in_half_precision(pair):
    p = kr.uniform(kr.Generator(), (5, 60), dtype=np.float16)
    for k, replacement in ((1, False), (1, True), (30, True)):
        theirs = pair.torch.multinomial(
            pair.torch.from_numpy(p), k, replacement, generator=pair.theirs
        )
        pair.check(kr.multinomial(pair.ours, p, k, replacement), theirs)


def test_normal_around_arrays(pair):
    torch, g, t = pair.torch, pair.ours, pair.theirs
    row, column = np.float32([1, 2, 3.3]), np.ones((40, 1), np.float32)
    wide = np.float64([1, 2, 3.3])
    as_tensor = torch.from_numpy
    theirs = torch.normal(as_tensor(row), 0.5, generator=t)
    pair.check(kr.normal(g, None, row, 0.5), theirs)
    pair.check(kr.normal(g, None, 0.5, row), torch.normal(0.5, as_tensor(row), generator=t))
    theirs = torch.normal(as_tensor(column), as_tensor(row), generator=t)
    pair.check(kr.normal(g, None, column, row), theirs)
    theirs = torch.normal(as_tensor(column), as_tensor(wide), generator=t)
    pair.check(kr.normal(g, None, column, wide), theirs)


# ------------------------------------------------------------------------------ without PyTorch


def test_the_stream_never_changes():
    # Only exact or correctly rounded operations: these bytes are the same on every machine.
    g = kr.Generator().manual_seed(0)
    drawn = [
        kr.uniform(g, 1000),
        kr.uniform(g, 100, dtype="float64"),
        kr.normal(g, 1000),
        kr.random_integers(g, 0, 1000, 100),
        kr.permutation(g, 3000),
        kr.bernoulli(g, 0.3, 100),
    ]
    assert [zlib.crc32(x.tobytes()) for x in drawn] == [
        2206920785,
        2549002598,
        2873783087,
        2377588231,
        2557925213,
        1364199881,
    ]


def test_default_seeds(torch):
    assert kr.Generator().initial_seed() == torch.Generator().initial_seed()


@pytest.mark.parametrize("seed", SEEDS)
def test_states_are_exchanged_with_pytorch(torch, seed):
    ours, theirs = kr.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    assert ours.initial_seed() == theirs.initial_seed()
    for n in (0, 1, 623, 1, 624, 3):  # to the end of a block of 624 words, and beyond
        kr.uniform(ours, n)
        torch.rand(n, generator=theirs)
        np.testing.assert_array_equal(ours.get_state(), theirs.get_state().numpy())
    kr.normal(ours, 3)  # leaves a number waiting
    fresh = torch.Generator()
    fresh.set_state(torch.from_numpy(ours.get_state()))
    expected = torch.randn(4, generator=fresh).numpy()
    np.testing.assert_array_equal(kr.normal(ours, 4), expected)
    back = kr.Generator().set_state(fresh.get_state().numpy())
    np.testing.assert_array_equal(kr.uniform(back, 700), torch.rand(700, generator=fresh).numpy())


def test_a_state_returns_the_stream_to_where_it_was():
    g = kr.Generator().manual_seed(5)
    for before in (0, 1, 3, 700):
        kr.normal(g, before)
        state = g.get_state()
        assert state.dtype == np.uint8
        assert state.shape == (5056,)
        first = kr.normal(g, 3), kr.uniform(g, 900), kr.permutation(g, 10), kr.normal(g, 5)
        g.set_state(state)
        again = kr.normal(g, 3), kr.uniform(g, 900), kr.permutation(g, 10), kr.normal(g, 5)
        for x, y in zip(first, again, strict=True):
            np.testing.assert_array_equal(x, y)


def test_the_unused_float_slot_of_a_state_survives():
    state = kr.Generator().get_state()
    state[5048:5052] = np.frombuffer(np.float32(1.5).tobytes(), np.uint8)
    state[5052] = 1
    np.testing.assert_array_equal(kr.Generator().set_state(state).get_state(), state)


@pytest.mark.parametrize(
    "duplicate",
    [kr.Generator.clone_state, copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))],
)
def test_copies_go_their_own_way(duplicate):
    g = kr.Generator().manual_seed(8)
    kr.normal(g, 5)
    other = duplicate(g)
    assert other.initial_seed() == 8
    expected = kr.normal(other, 5)
    kr.uniform(other, 3)
    np.testing.assert_array_equal(kr.normal(g, 5), expected)


def test_seeding_forgets_the_waiting_number():
    g = kr.Generator().manual_seed(0)
    first = kr.normal(g, 1)
    assert kr.normal(g.manual_seed(0), 1) == first


def test_an_empty_draw_leaves_the_stream_alone():
    g = kr.Generator().manual_seed(0)
    kr.normal(g, 1)
    state = g.get_state()
    for size in (0, (3, 0)):
        kr.uniform(g, size)
        kr.normal(g, size)
        kr.bernoulli(g, 0.5, size)
        kr.random_integers(g, 0, 5, size)
    kr.permutation(g, 0)
    kr.permutation(g, 1)
    kr.dropout_mask(g, 5, 0.0)
    kr.dropout_mask(g, 5, 1.0)
    np.testing.assert_array_equal(g.get_state(), state)


def test_the_default_generator():
    with kr.fork_rng():
        assert kr.manual_seed(11) is kr.default_generator
        assert kr.initial_seed() == 11
        state = kr.get_rng_state()
        first = kr.uniform(None, 4)
        kr.set_rng_state(state)
        np.testing.assert_array_equal(kr.uniform(None, 4), first)
        np.testing.assert_array_equal(kr.uniform(kr.Generator().manual_seed(11), 4), first)
        assert kr.seed() == kr.initial_seed() == kr.default_generator.initial_seed()
        assert kr.seed() != kr.seed()


def test_fork_rng_restores_after_an_exception():
    state = kr.get_rng_state()

    def draw_and_fail():
        with kr.fork_rng():
            kr.normal(None, 3)
            raise KeyError

    with pytest.raises(KeyError):
        draw_and_fail()
    np.testing.assert_array_equal(kr.get_rng_state(), state)
    with kr.fork_rng():
        with kr.fork_rng(enabled=False):
            kr.uniform(None, 1)
        assert (kr.get_rng_state() != state).any()
    np.testing.assert_array_equal(kr.get_rng_state(), state)


def test_fork_rng_of_pytorch_takes_the_same_arguments():
    with kr.fork_rng([], True, device_type="cpu"):
        pass


def test_threads_share_a_generator_without_losing_or_repeating_a_word():
    g = kr.Generator().manual_seed(2)
    drawn = []

    def draw():
        for n in (10, 5000, 1, 300) * 10:
            drawn.append(kr.uniform(g, n))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = np.sort(np.concatenate(drawn))
    alone = np.sort(kr.uniform(kr.Generator().manual_seed(2), together.size))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("rate", [0.0, 0.5, 3.0, 9.9, 10.1, 250.0])
def test_poisson_has_its_mean_and_variance(rate):
    n = 20000
    g = kr.Generator().manual_seed(1)
    counts = kr.poisson(g, np.full(n, rate, np.float32))
    assert counts.dtype == np.float32
    assert (counts == np.round(counts)).all()
    error = 5 * math.sqrt(max(rate, 1e-9) / n)
    assert abs(counts.mean() - rate) <= error
    assert abs(counts.var() - rate) <= 5 * math.sqrt((rate + 2 * rate**2 + 1e-9) / n)
    again = kr.poisson(g.manual_seed(1), np.full(n, rate, np.float32))
    np.testing.assert_array_equal(counts, again)


def test_poisson_moves_the_generator():
    g = kr.Generator().manual_seed(1)
    state = g.get_state()
    kr.poisson(g, np.ones(3))
    assert (g.get_state() != state).any()
    g.clone_state()


def test_normal_numbers_are_normal():
    x = np.sort(kr.normal(kr.Generator().manual_seed(0), 100_000).astype(np.float64))
    expected = np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x[::100].tolist()])
    assert np.abs(expected - np.arange(0, 100_000, 100) / 100_000).max() < 1.63 / math.sqrt(100_000)


def test_multiply_add_rounds_once():
    from fractions import Fraction

    x = kr.normal(kr.Generator().manual_seed(0), 200, dtype="float64")
    for factor, term in ((0.7, 0.1), (1.0, 0.3), (1 / 3, -1e-8), (3e5, 7.7)):
        once = [float(Fraction(v) * Fraction(factor) + Fraction(term)) for v in x.tolist()]
        np.testing.assert_array_equal(kr._multiply_add(x, factor, term), once)


# -------------------------------------------------------------------------------------- refusals

P = np.float32([0.5, 0.5])


@pytest.mark.parametrize(
    ("error", "message", "draw"),
    [
        (RuntimeError, "expected a long", lambda: kr.Generator().manual_seed(1.5)),
        (RuntimeError, "expected a long", lambda: kr.Generator().manual_seed("3")),
        (RuntimeError, "expected a long", lambda: kr.Generator().manual_seed(True)),
        (ValueError, "Overflow", lambda: kr.Generator().manual_seed(2**64)),
        (ValueError, "Overflow", lambda: kr.manual_seed(-(2**63) - 1)),
        (RuntimeError, "CPU", lambda: kr.Generator("cuda")),
        (TypeError, "uint8", lambda: kr.Generator().set_state(np.zeros(5056))),
        (RuntimeError, "size 5056", lambda: kr.Generator().set_state(np.zeros(9, np.uint8))),
        (RuntimeError, "Invalid", lambda: kr.Generator().set_state(np.zeros(5056, np.uint8))),
        (RuntimeError, "negative dimension", lambda: kr.uniform(None, -1)),
        (RuntimeError, r"\[from, to\)", lambda: kr.uniform(None, 2, 3.0, 1.0)),
        (RuntimeError, "to-from", lambda: kr.uniform(None, 2, -3e38, 3e38)),
        (RuntimeError, "out of bounds", lambda: kr.uniform(None, 2, 0.0, 1e39)),
        (RuntimeError, "out of bounds", lambda: kr.uniform(None, 2, math.nan, 1.0)),
        (NotImplementedError, "int32", lambda: kr.uniform(None, 2, dtype=np.int32)),
        (NotImplementedError, "int32", lambda: kr.normal(None, 2, dtype=np.int32)),
        (RuntimeError, "std >= 0", lambda: kr.normal(None, 2, 0.0, -1.0)),
        (RuntimeError, "std >= 0", lambda: kr.normal(None, 2, 0.0, math.nan)),
        (RuntimeError, "std >= 0", lambda: kr.normal(None, None, 0.0, np.float32([1, -1]))),
        (RuntimeError, r"\[0, 1\]", lambda: kr.bernoulli(None, 1.5, 3)),
        (RuntimeError, r"\[0, 1\]", lambda: kr.bernoulli(None, math.nan, 3)),
        (RuntimeError, r"\[0, 1\]", lambda: kr.bernoulli(None, np.float32([0.5, -1]))),
        (NotImplementedError, "int64", lambda: kr.bernoulli(None, np.array([0, 1]))),
        (ValueError, "between 0 and 1", lambda: kr.dropout_mask(None, 3, 1.5)),
        (RuntimeError, "less than 'to'", lambda: kr.random_integers(None, 5, 5, 3)),
        (RuntimeError, "to - 1", lambda: kr.random_integers(None, 0, 300, 3, np.uint8)),
        (RuntimeError, "from is", lambda: kr.random_integers(None, -1, 3, 3, np.uint8)),
        (RuntimeError, "to - 1", lambda: kr.random_integers(None, 0, 3, 3, bool)),
        (RuntimeError, "to - 1", lambda: kr.random_integers(None, 0, 2**63 + 1, 3)),
        (RuntimeError, "to - 1", lambda: kr.random_integers(None, 0, 2**25, 3, np.float32)),
        (RuntimeError, "complex64", lambda: kr.random_integers(None, 0, 3, 3, np.complex64)),
        (RuntimeError, "negative dimension", lambda: kr.permutation(None, -1)),
        (RuntimeError, "greater than 255", lambda: kr.permutation(None, 300, np.uint8)),
        (RuntimeError, "greater than 2049", lambda: kr.permutation(None, 3000, np.float16)),
        (TypeError, "integer", lambda: kr.permutation(None, 3.5)),
        (RuntimeError, "lambda > 0", lambda: kr.exponential(None, 3, 0.0)),
        (RuntimeError, "floating", lambda: kr.exponential(None, 3, 1.0, np.int32)),
        (RuntimeError, "sigma > 0", lambda: kr.cauchy(None, 3, 0.0, 0.0)),
        (RuntimeError, "floating", lambda: kr.cauchy(None, 3, dtype=np.int32)),
        (RuntimeError, "std > 0", lambda: kr.log_normal(None, 3, 0.0, 0.0)),
        (RuntimeError, r"\(0, 1\)", lambda: kr.geometric(None, 3, 1.0)),
        (RuntimeError, "non-negative", lambda: kr.poisson(None, np.float32([-1]))),
        (RuntimeError, "without replacement", lambda: kr.multinomial(None, P, 3)),
        (RuntimeError, "n_sample <= 0", lambda: kr.multinomial(None, P, 0)),
        (RuntimeError, "element < 0", lambda: kr.multinomial(None, -P, 1)),
        (RuntimeError, "inf", lambda: kr.multinomial(None, P * np.inf, 2, True)),
        (RuntimeError, "nan", lambda: kr.multinomial(None, P * np.nan, 2)),
        (RuntimeError, "sum of prob", lambda: kr.multinomial(None, P * 0, 1)),
        (RuntimeError, "floating-point", lambda: kr.multinomial(None, np.array([1, 2]), 1)),
        (RuntimeError, "1 or 2 dim", lambda: kr.multinomial(None, np.ones((2, 2, 2)), 1)),
    ],
)
def test_refusals(error, message, draw):
    with kr.fork_rng():
        state = kr.get_rng_state()
        with pytest.raises(error, match=message):
            draw()
        np.testing.assert_array_equal(kr.get_rng_state(), state)
