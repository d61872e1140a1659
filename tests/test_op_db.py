"""PyTorch's own op_db samples, error inputs included, for every tier-1 name (and tier 2 in `-m slow`).

Names that are not in op_db have tests of their own elsewhere.
"""

import pytest

pytest.importorskip("torch")

from tests.oracle import op_db

TIER_1 = """
abs add sub mul div neg pow exp log log1p expm1 sqrt rsqrt square reciprocal sin cos tan tanh
sigmoid erf floor ceil round sign clamp clamp_min clamp_max maximum minimum where remainder
floor_divide eq ne lt le gt ge isnan isinf isfinite allclose logical_and logical_or logical_not
masked_fill bitwise_and bitwise_or bitwise_not sum mean prod max min amax amin argmax argmin std
var all any cumsum cumprod logsumexp softmax log_softmax reshape view flatten squeeze unsqueeze
transpose permute t T expand expand_as repeat cat stack split chunk unbind flip repeat_interleave
contiguous clone meshgrid tril triu diag __getitem__ gather scatter scatter_add index_select
masked_select nonzero sort argsort topk unique zeros ones full eye arange linspace zeros_like
ones_like full_like matmul mm bmm mv dot outer einsum addmm linalg.norm linalg.inv linalg.det
linalg.solve linalg.cholesky linalg.svd float double long int bool item zero_ __radd__
__rsub__ __rmul__ __rdiv__ __rpow__ nn.functional.relu nn.functional.leaky_relu
nn.functional.elu nn.functional.gelu nn.functional.silu nn.functional.softplus
nn.functional.linear nn.functional.conv1d nn.functional.conv2d nn.functional.conv_transpose2d
nn.functional.max_pool2d nn.functional.avg_pool2d nn.functional.adaptive_avg_pool2d
nn.functional.batch_norm nn.functional.layer_norm nn.functional.group_norm
nn.functional.normalize nn.functional.embedding nn.functional.one_hot
nn.functional.cross_entropy nn.functional.nll_loss nn.functional.mse_loss nn.functional.l1_loss
nn.functional.smooth_l1_loss nn.functional.huber_loss nn.functional.binary_cross_entropy
nn.functional.binary_cross_entropy_with_logits nn.functional.kl_div
nn.functional.cosine_similarity nn.functional.interpolate nn.functional.pad nn.functional.unfold
""".split()
# The same seed gives the same numbers, so these are compared like the others.
TIER_1 += """
randn randint randn_like normal bernoulli multinomial nn.functional.dropout
nn.functional.scaled_dot_product_attention
""".split()

TIER_2 = """
log2 log10 sinh cosh asin acos atan atan2 trunc lerp addcmul addcdiv fmod true_divide isclose
equal logical_xor bitwise_xor narrow select tile ravel unflatten broadcast_to broadcast_tensors
diagonal index_add index_put take_along_dim baddbmm trace linalg.vector_norm linalg.eigh
linalg.qr fill __rmatmul__ nn.functional.logsigmoid nn.functional.glu nn.functional.prelu
nn.functional.hardtanh exp2 erfc logaddexp xlogy nan_to_num logit lgamma digamma isin median
nansum count_nonzero var_mean cummax cummin kthvalue quantile diff norm dist argwhere roll
movedim mT hstack vstack diag_embed broadcast_shapes index_fill scatter_reduce take searchsorted
bincount tril_indices triu_indices new_zeros new_ones new_full tensordot inner cross kron cdist
cov linalg.slogdet logdet linalg.pinv linalg.matrix_norm linalg.matrix_power linalg.lstsq
linalg.solve_triangular half __rmod__ nn.functional.selu nn.functional.relu6
nn.functional.hardswish nn.functional.hardsigmoid nn.functional.mish nn.functional.softsign
nn.functional.threshold nn.functional.conv3d nn.functional.conv_transpose1d
nn.functional.conv_transpose3d nn.functional.max_pool1d nn.functional.max_pool3d
nn.functional.avg_pool1d nn.functional.avg_pool3d nn.functional.adaptive_avg_pool1d
nn.functional.adaptive_max_pool1d nn.functional.adaptive_max_pool2d nn.functional.instance_norm
nn.functional.rms_norm nn.functional.embedding_bag nn.functional.gaussian_nll_loss
nn.functional.hinge_embedding_loss nn.functional.margin_ranking_loss
nn.functional.triplet_margin_loss nn.functional.cosine_embedding_loss nn.functional.ctc_loss
nn.functional.pairwise_distance nn.functional.grid_sample nn.functional.pixel_shuffle
nn.functional.pixel_unshuffle
""".split()


@pytest.mark.parametrize("name", TIER_1)
def test_tier_1(name):
    count, failures = op_db.run(name)
    assert count, f"op_db has no sample of {name}"
    assert not failures, "\n" + "\n".join(failures)


def test_empty():  # its values are whatever was in memory
    count, failures = op_db.run("empty", values=False)
    assert count and not failures, "\n" + "\n".join(failures)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIER_2)
def test_tier_2(name):
    count, failures = op_db.run(name)
    assert count, f"op_db has no sample of {name}"
    assert not failures, "\n" + "\n".join(failures)
