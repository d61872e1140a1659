"""The driver, its modes, hooks, in-place semantics and memory."""

import gc
import threading
import warnings
import weakref

import numpy as np
import pytest

import kilograd as kg
from kilograd.autograd import Function, gradcheck, gradgradcheck


def leaf(*shape, dtype=kg.float64):
    return kg.randn(*shape, dtype=dtype, requires_grad=True)


def upstream(t):
    return kg.randn(*t.shape, dtype=t.dtype)


# --- backward and grad --------------------------------------------------------------------------


def test_backward_needs_a_gradient_unless_scalar():
    x = leaf(3)
    with pytest.raises(RuntimeError, match="scalar outputs"):
        (x * 2).backward()
    (x * 2).backward(kg.tensor([1.0, 2.0, 3.0], dtype=kg.float64))
    assert x.grad.tolist() == [2, 4, 6]


def test_backward_refuses_a_gradient_of_another_shape():
    with pytest.raises(RuntimeError, match=r"\(2,\).*\(3,\)"):
        (leaf(3) * 2).backward(kg.ones(2, dtype=kg.float64))


def test_backward_of_a_constant_raises():
    with pytest.raises(RuntimeError, match="does not require grad"):
        kg.ones(1).backward()


def test_gradients_accumulate_linearly():
    x = leaf(4)
    y = (x * x).sum()
    grads = []
    for _ in range(3):
        y.backward(retain_graph=True)
        grads.append(x.grad.array.copy())
    np.testing.assert_allclose(grads[1], 2 * grads[0])
    np.testing.assert_allclose(grads[2], 3 * grads[0])


def test_second_backward_without_retain_graph_raises():
    x = leaf(2)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_grad_takes_the_old_only_inputs():
    x = leaf(2)
    (g,) = kg.autograd.grad((x * x).sum(), x, None, None, False, True, True)
    np.testing.assert_allclose(g.array, 2 * x.array)


def test_backward_with_inputs_touches_only_those():
    x, w = leaf(3), leaf(3)
    h = x * w
    (h * h).sum().backward(inputs=[w])
    assert x.grad is None
    np.testing.assert_allclose(w.grad.array, (2 * x * x * w).array)


def test_grad_leaves_dot_grad_alone_and_reports_unused():
    x, w, z = leaf(3), leaf(3), leaf(3)
    (gx,) = kg.autograd.grad((x * w).sum(), [x])
    assert x.grad is None and np.allclose(gx.array, w.array)
    with pytest.raises(RuntimeError, match="allow_unused"):
        kg.autograd.grad((x * w).sum(), [z])
    assert kg.autograd.grad((x * w).sum(), [z], allow_unused=True) == (None,)
    (g,) = kg.autograd.grad((x * w).sum(), [z], materialize_grads=True)
    assert g.tolist() == [0, 0, 0]


def test_grad_of_an_intermediate():
    x = leaf(3)
    h = x.sin()
    (gh,) = kg.autograd.grad((h * h).sum(), h)
    np.testing.assert_allclose(gh.array, 2 * h.array)


def test_fourth_derivative():
    x = kg.tensor(0.7, dtype=kg.float64, requires_grad=True)
    y = x.sin() * x
    for _ in range(4):
        (y,) = kg.autograd.grad(y, x, create_graph=True)
    expected = 0.7 * np.sin(0.7) - 4 * np.cos(0.7)
    assert y.item() == pytest.approx(expected)


def test_create_graph_through_dot_grad():
    x = leaf(3)
    (x**3).sum().backward(create_graph=True)
    g = x.grad
    x.grad = None
    g.sum().backward()
    np.testing.assert_allclose(x.grad.array, 6 * x.array)


def test_two_losses_of_one_graph():
    x = leaf(3)
    h = x.exp()
    a, b = h.sum(), (h * h).sum()
    a.backward(retain_graph=True)
    b.backward()
    np.testing.assert_allclose(x.grad.array, np.exp(x.array) + 2 * np.exp(2 * x.array))


def test_grad_dtype_and_shape_follow_the_input():
    x = kg.randn(3, 1, requires_grad=True)
    w = kg.randn(1, 4, dtype=kg.float64, requires_grad=True)
    y = x * w
    assert y.dtype == kg.float64
    y.backward(upstream(y))
    assert (x.grad.dtype, tuple(x.grad.shape)) == (kg.float32, (3, 1))
    assert (w.grad.dtype, tuple(w.grad.shape)) == (kg.float64, (1, 4))


def test_gradients_of_two_leaves_never_share_memory():
    a, b = leaf(3), leaf(3)
    up = kg.ones(3, dtype=kg.float64)
    (a + b).backward(up)
    a.grad.mul_(5)
    assert b.grad.tolist() == [1, 1, 1] and up.tolist() == [1, 1, 1]


# --- structure and memory -----------------------------------------------------------------------


def test_linear_time_on_diamonds():
    x = kg.tensor(1.0, dtype=kg.float64, requires_grad=True)
    y = x
    for _ in range(40):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**40


def test_a_chain_of_50_000_operations_does_not_recurse():
    x = kg.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(50_000):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    del y


def test_graphs_die_without_the_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(10)
        h = x.exp()
        loss = (h * h).sum()
        refs = [weakref.ref(h), weakref.ref(h.grad_fn), weakref.ref(loss.grad_fn)]
        del h, loss
        assert all(r() is None for r in refs)
    finally:
        gc.enable()


def test_activations_die_during_backward():
    x = leaf(10)
    h = x.exp()
    array = weakref.ref(h.array)
    loss = h.square().sum()
    del h
    assert array() is not None
    loss.backward()
    assert array() is None


def test_no_cycles_in_a_training_step():
    w = leaf(4, 4)
    x = kg.randn(8, 4, dtype=kg.float64)

    def step():
        w.grad = None
        loss = ((x @ w).tanh() ** 2).mean()
        loss.backward()

    step()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            step()
        assert len(gc.get_objects()) - before < 50
    finally:
        gc.enable()


# --- modes --------------------------------------------------------------------------------------


def test_no_grad_as_context_and_decorator():
    x = leaf(2)
    with kg.no_grad():
        assert not (x * 2).requires_grad
        with kg.enable_grad():
            assert (x * 2).requires_grad

    @kg.no_grad()
    def f():
        return x * 2

    @kg.no_grad
    def g():
        return x * 2

    assert not f().requires_grad and not g().requires_grad and (x * 2).requires_grad


def test_no_grad_decorates_generators():
    @kg.no_grad()
    def gen():
        sent = yield kg.is_grad_enabled()
        yield (sent, kg.is_grad_enabled())

    it = gen()
    assert next(it) is False
    assert kg.is_grad_enabled()
    assert it.send("a") == ("a", False)
    assert kg.is_grad_enabled()


def test_set_grad_enabled_at_once_and_as_context():
    try:
        kg.set_grad_enabled(False)
        assert not kg.is_grad_enabled()
    finally:
        kg.set_grad_enabled(True)
    with kg.set_grad_enabled(False):
        assert not kg.is_grad_enabled()
    assert kg.is_grad_enabled()


def test_modes_do_not_leak_into_other_threads():
    seen = []
    with kg.no_grad():
        t = threading.Thread(target=lambda: seen.append(kg.is_grad_enabled()))
        t.start()
        t.join()
    assert seen == [True]


def test_modes_survive_exceptions():
    with pytest.raises(ZeroDivisionError), kg.no_grad():
        1 / 0
    assert kg.is_grad_enabled()


def test_inference_tensors_cannot_be_recorded():
    w = leaf(2)
    with kg.inference_mode():
        h = kg.ones(2, dtype=kg.float64) * 2
    with pytest.raises(RuntimeError, match=r"[Ii]nference"):
        w * h


def test_retain_grad_and_retain_grads():
    x = leaf(3)
    h = x * 2
    h.retain_grad()
    (h * h).sum().backward()
    np.testing.assert_allclose(h.grad.array, 2 * h.array)
    with kg.retain_grads():
        a = x * 3
        b = a.exp()
    b.sum().backward()
    np.testing.assert_allclose(a.grad.array, b.array)
    assert b.grad.tolist() == [1, 1, 1]


def test_grad_of_a_non_leaf_is_none():
    x = leaf(3)
    h = x * 2
    h.sum().backward()
    with pytest.warns(UserWarning, match="not a leaf is read.*retain_grad"):
        assert h.grad is None
    assert h.grad_fn is not None and not h.is_leaf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kg.ones(2).grad is None and leaf(2).grad is None  # leaves
        h = x * 2
        h.retain_grad()
        assert h.grad is None
    compiled = kg.compile(lambda t: (t * 2).sum())
    compiled(x.detach())
    with pytest.warns(UserWarning, match="not a leaf"):  # recording puts the attribute back
        assert (x * 2).grad is None


# --- hooks --------------------------------------------------------------------------------------


def test_hooks_on_leaves_and_intermediates():
    x = leaf(3)
    seen = []
    handle = x.register_hook(lambda g: g * 10)
    h = x * 2
    h.register_hook(lambda g: seen.append(g.tolist()))
    h.sum().backward()
    assert x.grad.tolist() == [20, 20, 20] and seen == [[1, 1, 1]]
    handle.remove()
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_leaf_hook_sees_the_whole_gradient_once():
    x = leaf(1)
    calls = []
    x.register_hook(lambda g: calls.append(g.item()))
    (x * 2 + x * 3).sum().backward()
    assert calls == [5]


def test_post_accumulate_hook():
    x = leaf(2)
    x.register_post_accumulate_grad_hook(lambda p: p.data.sub_(p.grad))
    before = x.array.copy()
    (x * 2).sum().backward()
    np.testing.assert_allclose(x.array, before - 2)


def test_hooks_on_constants_are_refused():
    with pytest.raises(RuntimeError):
        kg.ones(2).register_hook(print)


# --- in place -----------------------------------------------------------------------------------


def test_inplace_on_a_leaf_needs_no_grad():
    x = leaf(3)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="view of a leaf"):
        x[0].add_(1)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        x[0] = 1.0
    with kg.no_grad():
        before = x.array.copy()
        x.add_(1)
        x[0] += 1
    np.testing.assert_allclose(x.array, before + [2, 1, 1])
    assert x.requires_grad and x.is_leaf


def test_a_modified_saved_value_raises_at_backward():
    x = leaf(3)
    h = x.exp()
    y = h * h
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_saved_value_modified_through_a_view_raises():
    x = leaf(3)
    w = kg.randn(3, dtype=kg.float64)
    y = x * w
    w[1:].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def inplace_cases():
    def add(x, w):
        h = x * 1
        h += w
        return h * h

    def mul(x, w):
        h = x * 1
        h.mul_(w)
        return h * h

    def power(x, w):
        h = x * w
        h.pow_(2)
        return h

    def setitem(x, w):
        h = x * 1
        h[0] = w[1] * 3
        h[:, 1] += h[:, 0]
        return h * h

    def setitem_constant_target(x, w):
        h = kg.zeros(3, 3, dtype=kg.float64)
        h[1] = x[0] * w[2]
        h[1, 2] = x[1, 1] ** 2
        return h.exp()

    def view(x, w):
        h = x * 1
        v = h[1:]
        v.mul_(w[:2])
        return h * v.sum()

    def view_of_view(x, w):
        h = x * 1
        h.transpose(0, 1)[0][1:].add_(w[0, 0] * w[1, 1])
        return h * h

    def sibling_views(x, w):
        h = x * 1
        a, b = h[0], h[0, :2]
        a.mul_(w[0])
        return b * b + h.sum()

    def base_changed_under_view(x, w):
        h = x * 1
        v = h.reshape(9)
        h.mul_(w)
        return v * v

    def index_array(x, w):
        h = x * 1
        h[kg.tensor([0, 2])] = w[:2] * 2
        return h * h

    def mask(x, w):
        h = x * 1
        h[h > 0] = 0.0
        return h * w

    def copy(x, w):
        h = kg.zeros(3, 3, dtype=kg.float64)
        h[0].copy_(x[1] * w[0])
        h.relu_()
        return h * 3

    def masked_fill(x, w):
        return (x * w).masked_fill_(x > 0, 2.0) ** 2

    return [v for v in locals().values() if callable(v)]


@pytest.mark.parametrize("fn", inplace_cases(), ids=lambda f: f.__name__)
def test_inplace_on_graph_tensors_agrees_with_finite_differences(fn):
    x, w = leaf(3, 3), leaf(3, 3)
    assert gradcheck(fn, (x, w), fast_mode=True)
    assert gradgradcheck(fn, (x, w), fast_mode=True)


def test_inplace_keeps_identity_and_memory():
    x = leaf(3)
    h = x * 2
    array = h.array
    before = id(h)
    h += 1
    assert id(h) == before and h.array is array


def test_inplace_refuses_what_does_not_fit():
    with pytest.raises(RuntimeError, match="broadcast shape"):
        kg.zeros(3).add_(kg.zeros(2, 3))
    with pytest.raises(RuntimeError, match="can't be cast"):
        kg.zeros(3, dtype=kg.int64).add_(0.5)
    with pytest.raises(RuntimeError, match="single memory location"):
        kg.zeros(1).expand(3).add_(1)


def test_detach_shares_memory_and_version_data_does_not():
    x = leaf(3)
    y = x * x
    x.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified"):
        y.sum().backward()
    y = x * x
    x.data.add_(1)
    y.sum().backward()


# --- NumPy citizenship --------------------------------------------------------------------------


def test_numpy_functions_differentiate_or_raise():
    x = leaf(3)
    y = np.exp(x) + np.sum(x) + np.ones(3) * x
    y.sum().backward()
    np.testing.assert_allclose(x.grad.array, np.exp(x.array) + 3 + 1)
    with pytest.raises(TypeError):
        np.spacing(x)
    with pytest.raises(TypeError):
        np.add.reduce(x)
    with pytest.raises(TypeError):
        np.unwrap(x)
    with pytest.raises(RuntimeError, match="requires grad"):
        np.asarray(x)
    with pytest.raises(RuntimeError, match="requires grad"):
        x.numpy()
    assert np.asarray(x.detach()) is not None


def test_arrays_on_either_side_of_operators():
    x = leaf(2, 2)
    a = np.arange(4.0).reshape(2, 2)
    for y in (x @ a, a @ x, x * a, a * x, a - x, x / (a + 1), a ** x.detach().abs()):
        assert isinstance(y, kg.Tensor)


def test_python_protocols():
    x = kg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert [[v.item() for v in row] for row in x] == [[1, 2], [3, 4]]
    assert isinstance(x[0, 0].item(), float) and isinstance(kg.tensor(3).item(), int)
    assert bool(kg.tensor(1)) and not bool(kg.tensor(0.0))
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(x)
    assert len({x, x, x.clone()}) == 2
    assert 2.0 in x and 9.0 not in x
    assert f"{kg.tensor(1.5):.2f}" == "1.50"
    assert [10, 20, 30][kg.tensor(1)] == 20
    with pytest.raises(TypeError):
        len(kg.tensor(1.0))


# --- custom functions ---------------------------------------------------------------------------


class Scale(Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        ctx.save_for_backward(x)
        return x * x * factor, x + factor

    @staticmethod
    def backward(ctx, g, h):
        (x,) = ctx.saved_tensors
        return g * 2 * x * ctx.factor + h, None


def test_function_with_two_outputs_and_second_order():
    x = leaf(3)
    assert gradcheck(lambda x: Scale.apply(x, 3.0), (x,))
    assert gradgradcheck(lambda x: Scale.apply(x, 3.0), (x,))


def test_function_contract_is_checked():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g, g

    with pytest.raises(RuntimeError, match="incorrect number of gradients"):
        Wrong.apply(leaf(2)).sum().backward()

    class WrongShape(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return kg.ones(5, dtype=kg.float64)

    with pytest.raises(RuntimeError, match="invalid gradient"):
        WrongShape.apply(leaf(2)).sum().backward()
    with pytest.raises(RuntimeError):
        Scale()


def test_function_saved_output_and_release():
    class Exp(Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]

    x = leaf(3)
    assert gradcheck(Exp.apply, (x,)) and gradgradcheck(Exp.apply, (x,))
    y = Exp.apply(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    gc.collect()
    gc.disable()
    try:
        y = Exp.apply(x)
        ref = weakref.ref(y.grad_fn)
        del y
        assert ref() is None
    finally:
        gc.enable()


def test_mark_dirty():
    class AddOne(Function):
        @staticmethod
        def forward(ctx, x):
            x.add_(1)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 7

    x = leaf(2)
    h = x * 1
    y = AddOne.apply(h)
    assert y is h
    y.sum().backward()
    assert x.grad.tolist() == [7, 7]


# --- anomaly ------------------------------------------------------------------------------------


def test_anomaly_names_the_op_and_the_line():
    x = kg.tensor([-1.0, 4.0], requires_grad=True)
    with pytest.raises(RuntimeError) as e, kg.autograd.detect_anomaly():
        y = x.sqrt()  # the user's line
        y.sum().backward()
    assert "Sqrt" in str(e.value) and "the user's line" in str(e.value)


# --- gradcheck ----------------------------------------------------------------------------------


def test_gradcheck_finds_a_wrong_rule():
    class Bad(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * 1.01 * x

    x = leaf(3)
    with pytest.raises(RuntimeError, match="mismatch"):
        gradcheck(Bad.apply, (x,))
    assert gradcheck(Bad.apply, (x,), raise_exception=False, fast_mode=True) is False


def test_gradgradcheck_finds_a_wrong_second_derivative():
    class Half(Function):  # right gradient, but not differentiable again
        @staticmethod
        def forward(ctx, x):
            ctx.x = x.detach()
            return x**3

        @staticmethod
        def backward(ctx, g):
            return g * 3 * ctx.x**2

    x = leaf(3)
    assert gradcheck(Half.apply, (x,))
    with pytest.raises(RuntimeError):
        gradgradcheck(Half.apply, (x,))


def test_gradcheck_of_a_module():
    model = kg.nn.Sequential(kg.nn.Linear(3, 4), kg.nn.Tanh(), kg.nn.Linear(4, 2)).double()
    assert gradcheck(model, (leaf(5, 3),), fast_mode=True)


def test_checkpoint_recomputes_the_same():
    w = leaf(3, 3)
    x = leaf(2, 3)

    def block(h):
        return kg.nn.functional.dropout(h @ w, 0.5).tanh()

    kg.manual_seed(3)
    a = block(x).sum()
    ga = kg.autograd.grad(a, [x, w])
    kg.manual_seed(3)
    b = kg.utils.checkpoint.checkpoint(block, x).sum()
    b.backward()
    np.testing.assert_allclose(ga[0].array, x.grad.array)
    np.testing.assert_allclose(ga[1].array, w.grad.array)


def test_checkpoint_where_only_parameters_require_grad():
    """Their gradients come through the graph, so that grad() and higher orders see them."""
    torch = pytest.importorskip("torch")
    from torch.utils.checkpoint import checkpoint as theirs

    from kilograd.utils.checkpoint import checkpoint

    rng = np.random.default_rng(0)
    data, first, second, up = (rng.normal(size=s) for s in ((4, 3), (3, 5), (5, 2), (4, 2)))

    def run(lib, checkpoint):
        x, g = lib.tensor(data), lib.tensor(up)
        w, v = (lib.tensor(a, requires_grad=True) for a in (first, second))
        outer = v * 2  # not a leaf, and from outside

        def block(x, scale=1.0, more=None):
            return (lib.tanh(x @ w * scale) @ outer + more["b"].sum(), x + 1)

        b = lib.tensor(data, requires_grad=True)
        out, plain = checkpoint(block, x, scale=0.5, more={"b": b}, use_reentrant=False)
        assert out.requires_grad
        one = lib.autograd.grad((out * g).sum(), [w, v, b], create_graph=True)
        two = lib.autograd.grad(sum((d**2).sum() for d in one), [w, v])
        return [np.asarray(t.detach().numpy()) for t in (out, plain, *one, *two)]

    for a, b in zip(run(kg, checkpoint), run(torch, theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_checkpoint_nested_and_freed():
    from kilograd.utils.checkpoint import checkpoint

    w = leaf(3, 3)
    seen = []

    def inner(h):
        seen.append("inner")
        return {"h": (h @ w).tanh(), "note": 7}

    def outer(h):
        seen.append("outer")
        return checkpoint(inner, h)["h"].sin()

    x = kg.tensor(np.random.default_rng(1).normal(size=(2, 3)))
    up = kg.tensor(np.random.default_rng(2).normal(size=(2, 3)))
    want = kg.autograd.grad(((x @ w).tanh().sin() * up).sum(), [w])[0]
    y = checkpoint(outer, x)
    assert seen == ["outer", "inner"]
    (y * up).sum().backward()
    np.testing.assert_allclose(w.grad.array, want.array)
    assert checkpoint(inner, x)["note"] == 7
    with kg.no_grad():
        assert not checkpoint(outer, x).requires_grad
    assert checkpoint(lambda t: t * 2, x).requires_grad is False
    with pytest.raises(ValueError, match="determinism_check"):
        checkpoint(inner, x, determinism_check="all")


def test_checkpoint_notices_what_has_changed():
    from kilograd.utils.checkpoint import checkpoint

    w, x = leaf(3, 3), kg.zeros(2, 3, dtype=kg.float64)
    y = checkpoint(lambda h: (h @ w).tanh(), x).sum()
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    sizes = iter([2, 1, 2, 1])
    y = checkpoint(lambda h: (h @ w)[: next(sizes)], x).sum()
    with pytest.raises(RuntimeError, match="gave other tensors when it was run again"):
        y.backward()
    entered = []

    class Told:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            entered.append(self.name)

        def __exit__(self, *_):
            pass

    y = checkpoint(lambda h: (h @ w).sin(), x, context_fn=lambda: (Told("first"), Told("later")))
    y.sum().backward()
    assert entered == ["first", "later"]


def test_functional_jacobian_and_hessian():
    x = leaf(3)
    j = kg.autograd.functional.jacobian(lambda x: x.outer(x), x)
    assert tuple(j.shape) == (3, 3, 3)
    h = kg.autograd.functional.hessian(lambda x: (x.outer(x) ** 2).sum(), x)
    s = (x.array**2).sum()
    np.testing.assert_allclose(h.array, 4 * s * np.eye(3) + 8 * np.outer(x.array, x.array))


def test_retained_grad_follows_in_place():
    x = kg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    y.retain_grad()
    y.mul_(3)
    (y**2).sum().backward()
    assert y.grad.tolist() == [12.0, 24.0, 36.0]  # of y's last value, as in PyTorch

    y = x * 2
    y.retain_grad()
    v = y[:2]
    v.retain_grad()
    v.mul_(3)
    (y**2).sum().backward()
    assert y.grad.tolist() == [12.0, 24.0, 12.0]

    y = x * 2
    v = y[:2]
    v.retain_grad()
    y.mul_(3)
    (v**2).sum().backward()
    assert v.grad.tolist() == [12.0, 24.0]


def test_backward_inputs_with_retained_grad_adds_once():
    x = kg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward(inputs=[y, x])
    assert y.grad.tolist() == [4.0, 8.0]
    assert x.grad.tolist() == [8.0, 16.0]


def test_function_returning_its_input_then_modified_in_place():
    class F(kg.autograd.Function):
        @staticmethod
        def forward(ctx, x, how):
            return x if how == "same" else x.view(-1)

        @staticmethod
        def backward(ctx, g):
            return g * 5, None

    x = kg.tensor([1.0, 2.0], requires_grad=True)
    for how in ("same", "view"):
        b = x * 1
        y = F.apply(b, how)
        b.mul_(2)
        with pytest.raises(RuntimeError, match="modified inplace"):
            (y * y).sum().backward()
        y = F.apply(x * 1, how)
        with pytest.raises(RuntimeError):
            y.mul_(2)


def test_set_materialize_grads_false_gives_none():
    seen = []

    class F(kg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, g, h):
            seen.append((g is None, h is None))
            return g * 2

    x = kg.tensor([1.0, 2.0], requires_grad=True)
    F.apply(x)[0].sum().backward()
    assert seen == [(False, True)] and x.grad.tolist() == [2.0, 2.0]


def test_subset_sees_changed_indices():
    from kilograd.utils.data import DataLoader, Subset, TensorDataset

    indices = [0, 1]
    loader = DataLoader(Subset(TensorDataset(kg.arange(6)), indices), 2)
    assert [b[0].tolist() for b in loader] == [[0, 1]]
    indices[0] = 5
    assert [b[0].tolist() for b in loader] == [[5, 1]]
