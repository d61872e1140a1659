"""``kilograd.special``: special functions, under the names of ``torch.special``."""

from __future__ import annotations

from kilograd.functions.elementwise import (
    binary,
    digamma,
    erf,
    erfc,
    erfinv,
    exp2,
    expm1,
    i0,
    igamma,
    igammac,
    lgamma,
    log1p,
    logit,
    mvlgamma,
    polygamma,
    round,
    sigmoid,
    sinc,
    unary,
    xlogy,
)
from kilograd.functions.reduce import log_softmax, logsumexp, softmax
from kilograd.ops import special

__all__ = [
    "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammainc",
    "gammaincc", "gammaln", "i0", "i0e", "i1", "i1e", "log1p", "log_ndtr", "log_softmax",
    "logit", "logsumexp", "multigammaln", "ndtr", "ndtri", "polygamma", "psi", "round", "sinc",
    "softmax", "xlog1py", "xlogy", "zeta",
]  # fmt: skip

expit, gammaln, psi, multigammaln = sigmoid, lgamma, digamma, mvlgamma
gammainc, gammaincc = igamma, igammac

# fmt: off
entr     = unary("entr",     special.entr,     "-x log(x), the entropy's summand; 0 at 0, -inf below", "[0.0, 0.5, 1.0]", "[0.0000, 0.3466, -0.0000]", method=False, inplace=False)
erfcx    = unary("erfcx",    special.erfcx,    "exp(x²) erfc(x), for large x", "[0.0, 10.0]", "[1.0000, 0.0561]", method=False, inplace=False)
i0e      = unary("i0e",      special.i0e,      "exp(-|x|) I₀(x)", "[0.0, 1.0]", "[1.0000, 0.4658]", method=False, inplace=False)
i1       = unary("i1",       special.i1,       "The modified Bessel function I₁", "[0.0, 1.0]", "[0.0000, 0.5652]", method=False, inplace=False)
i1e      = unary("i1e",      special.i1e,      "exp(-|x|) I₁(x)", "[0.0, 1.0]", "[0.0000, 0.2079]", method=False, inplace=False)
ndtr     = unary("ndtr",     special.ndtr,     "The standard normal distribution function", "[-1.0, 0.0, 1.0]", "[0.1587, 0.5000, 0.8413]", method=False, inplace=False)
ndtri    = unary("ndtri",    special.ndtri,    "The inverse of ndtr", "[0.25, 0.5]", "[-0.6745,  0.0000]", method=False, inplace=False)
log_ndtr = unary("log_ndtr", special.log_ndtr, "log(ndtr(x)), also far below 0", "[-100.0, 0.0]", "[-5.0055e+03, -6.9315e-01]", method=False, inplace=False)
xlog1py  = binary("xlog1py", special.xlog1py,  "input * log1p(other), and 0 where ``input`` is 0", "[0.0, 2.0] | [-1.0, 1.0]", "[0.0000, 1.3863]", numbers="either", method=False, inplace=False)
zeta     = binary("zeta",    special.zeta,     "Hurwitz's zeta function, Σ (other + k) ** -input over k >= 0", "[2.0, 4.0] | [1.0, 1.0]", "[1.6449, 1.0823]", numbers="either", method=False, inplace=False)
# fmt: on
