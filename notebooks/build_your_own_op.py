# %% [markdown]
# # Build your own operation
#
# What you learn here:
# - `autograd.Function`: a forward and a backward of your own, as in PyTorch;
# - `gradcheck` and `gradgradcheck`, which find wrong derivatives;
# - `@op`, the form that all of kilograd's own operations have, and the sample that gets one tested;
# - that both run under `kg.compile`.

# %%
import math
import time

import matplotlib.pyplot as plt
import numpy as np

import kilograd as kg
from kilograd.autograd import Function, gradcheck, gradgradcheck
from kilograd.ops.op import op

# %% [markdown]
# ## The function
#
# $\log\cosh x$ is a loss between two others: like $x^2 / 2$ near zero, like $|x|$ far from it. Its derivative
# is $\tanh x$. Written as it stands it overflows, since $\cosh 800$ is beyond every float; so its value is
# computed as $|x| + \log(1 + e^{-2|x|}) - \log 2$.

# %% [markdown]
# ## As an `autograd.Function`
#
# `forward` computes with tensors, and what it does is not recorded: `backward` stands for it. `ctx` carries
# what `backward` needs. `g` is the gradient of the output; `backward` returns one gradient for each input.


# %%
class LogCosh(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        size = x.abs()
        return size + kg.log1p(kg.exp(-2 * size)) - math.log(2)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * kg.tanh(x)


x = kg.linspace(-4, 4, 201, requires_grad=True)
y = LogCosh.apply(x)
y.sum().backward()

plt.figure(figsize=(5, 3))
plt.plot(x.detach(), y.detach(), label="log cosh x")
plt.plot(x.detach(), x.grad, label="its gradient")
plt.legend()
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## Is it right?
#
# `gradcheck` compares `backward` with finite differences, in float64. `gradgradcheck` does so for the
# gradient of the gradient, which exists because this `backward` is made of differentiable operations.

# %%
points = kg.randn(3, 5, dtype=kg.float64, requires_grad=True)
print(gradcheck(LogCosh.apply, (points,)), gradgradcheck(LogCosh.apply, (points,)))

# %% [markdown]
# And this is what they say when a rule is wrong:


# %%
class Wrong(LogCosh):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * kg.sigmoid(x)


try:
    gradcheck(Wrong.apply, (points,))
except kg.autograd.GradcheckError as error:
    print(error)

# %% [markdown]
# ## As an `@op`
#
# kilograd's own operations are declared like this: a forward function of NumPy arrays, and beside it a rule
# for each input. The names of a rule's arguments say what is kept for the backward pass: `g` is the gradient
# of the output, `x` the input of that name, `y` would be the output, `x_shape` only the input's shape.
#
# Change the cell and run it again: the new operation takes the place of the old one. Only another module may not
# give the name to an operation of its own.


# %%
@op
def log_cosh(x):
    size = np.abs(x)
    return size + np.log1p(np.exp(-2 * size)) - math.log(2)


@log_cosh.vjp("x")
def _(g, x):
    return g * np.tanh(x)


print(log_cosh)
print("of an array: ", log_cosh(np.array([0.0, 1.0, 800.0])))
print("of a tensor: ", log_cosh(kg.tensor([0.0, 1.0, 800.0], requires_grad=True)))

# %% [markdown]
# The rule is NumPy, and yet there are second derivatives: a rule that is run on Tensors in place of arrays
# is recorded like any computation. That is where all higher orders come from.

# %%
print(gradcheck(log_cosh, (points,)), gradgradcheck(log_cosh, (points,)))

# %% [markdown]
# ## Two inputs and an option
#
# All squared distances between the rows of `a` and of `b`, each divided by a fixed `scale`. Positional
# parameters are arrays, keyword-only parameters are options. The rules name the inputs that they need, and
# only those are kept; a rule for one input does not run when only the other needs a gradient.


# %%
@op
def scaled_distances(a, b, *, scale):  # (N, D), (M, D) → (N, M)
    return ((a * a).sum(axis=1)[:, None] - 2 * (a @ b.T) + (b * b).sum(axis=1)) / scale


@scaled_distances.vjp("a")
def _(g, a, b, scale):
    return (g.sum(axis=1)[:, None] * a - g @ b) * (2 / scale)


@scaled_distances.vjp("b")
def _(g, a, b, scale):
    return (g.sum(axis=0)[:, None] * b - g.T @ a) * (2 / scale)


a = kg.randn(4, 3, dtype=kg.float64, requires_grad=True)
b = kg.randn(5, 3, dtype=kg.float64, requires_grad=True)


def distances(a, b):
    return scaled_distances(a, b, scale=3.0)


print(gradcheck(distances, (a, b)), gradgradcheck(distances, (a, b)))

# %% [markdown]
# ## In the library
#
# An operation that joins kilograd goes into a file of `kilograd/ops/`, and its sample into
# `tests/samples.py`: calls on which it is tried. The registry test finds both by itself, and checks values,
# first and second derivatives, float32, empty and non-contiguous arrays, and that nothing is mutated. An
# operation without a sample fails the suite. For `scaled_distances` it would be:
#
# ```python
# @samples("scaled_distances")
# def _(r):
#     yield Sample("matrices", (r(4, 3), r(5, 3)), {"scale": 3.0})
#     yield Sample("one row", (r(1, 3), r(5, 3)), {"scale": 0.5})
#     yield Sample("empty", (r(0, 3), r(5, 3)), {"scale": 1.0})
# ```
#
# CONTRIBUTING.md says the rest.

# %% [markdown]
# ## Under `kg.compile`
#
# Both forms are recorded as the array operations that they consist of, and fused with their neighbours,
# the backward pass included. Nothing has to be declared.


# %%
def loss_with(log_cosh):
    def step(x, target, weight):
        x = x.detach().requires_grad_()
        loss = (weight * log_cosh(3 * (x - target))).mean()
        loss.backward()
        return loss.detach(), x.grad

    return step


batch = kg.randn(1000, 100), kg.randn(1000, 100), kg.rand(1000, 1)
for name, function in {"Function": LogCosh.apply, "@op": log_cosh}.items():
    eager, compiled = loss_with(function), kg.compile(loss_with(function))
    for _ in range(3):
        compiled(*batch)
    same = kg.allclose(compiled(*batch)[1], eager(*batch)[1])
    times = []
    for step in (eager, compiled):
        start = time.perf_counter()
        for _ in range(20):
            step(*batch)
        times.append((time.perf_counter() - start) / 20 * 1e3)
    print(f"{name:9s} eager {times[0]:.2f} ms, compiled {times[1]:.2f} ms; same gradient: {same}")

# %% [markdown]
# The program of the second, and what became of it: forward and backward are one loop over the 100,000
# elements.

# %%
print(compiled.graph)

# %%
print(compiled.explain())
