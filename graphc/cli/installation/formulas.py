"""Functions of graphc beside what they compute, written once more in plain NumPy.

Each formula is a line, or goes on in lines that are indented: an expression in graphc, ` == `, and
one in NumPy.  Names are `ARGUMENTS`, or in NumPy parameters that the function declares.

A line may also have several expressions that are formulas by themselves, if gc there is NumPy or
`plain.py`.  `y by x ~ right` is the gradient of y by x: the right side is y, which `grown`
differentiates.  WEIGHTS are the arrays of a recurrent layer, reverse__WEIGHTS those of another one.
"""

from graphc.cli.installation.options import OPTIONS
from graphc.cli.installation.slopes import SLOPES

ELEMENTS = """\
gc.tanh(x); gc.sin(x); gc.cos(x); gc.sinh(x); gc.cosh(x); gc.tan(u); gc.exp(x); gc.expm1(x)
gc.abs(x); gc.sign(x); gc.floor(x); gc.ceil(x); gc.round(x * 2); gc.log(p); gc.log1p(p); gc.sqrt(p)
gc.reciprocal(p); gc.asin(u); gc.acos(u); gc.atan(x); gc.asinh(x); gc.acosh(p + 1); gc.atanh(u)
gc.erf(x); gc.relu(x); gc.sigmoid(x); gc.softplus(x); gc.clip(x, -0.7, 0.9); gc.clip(x, None, 0.4)
gc.clip(x, 0.3, None); gc.add(x[:, :3], s[:, 2]); 3 - x - y * 2; 2 / p - x / 3; gc.power(p, x)
x**3 + x**2; p**-1.5; 2.5**x; gc.maximum(x, y); gc.minimum(x, y); gc.mod(x, p); gc.fmod(x, p)
gc.where(x > y, y, z); gc.where(i >= 2, i, -i); (i - 2) * 3 % 4 + i // 2
gc.neg(x) == -x
gc.relu6(x * 5) == np.clip(x * 5, 0, 6)
gc.silu(x) == x * sigmoid(x)
gc.softsign(x) == x / (1 + abs(x))
gc.mish(x) == x * np.tanh(softplus(x))
gc.gelu(x) == 0.5 * x * (1 + erf(x / 2**0.5))
gc.gelu(x, "tanh") == 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
gc.elu(x, 0.7) == np.where(x > 0, x, 0.7 * np.expm1(x))
gc.celu(x, 0.6) == np.where(x > 0, x, 0.6 * np.expm1(x / 0.6))
gc.selu(x) == 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))
gc.leaky_relu(x, 0.2) == np.where(x > 0, x, 0.2 * x)
gc.prelu(s, start=0.3) == np.where(s > 0, s, s * slope.reshape(-1, 1))
gc.shrink(x, 0.4, 0.1) == np.where(abs(x) > 0.4, x - 0.1 * np.sign(x), 0)
gc.thresholded_relu(x, 0.6) == x * (x > 0.6)
gc.hard_sigmoid(x * 3) == np.clip(x / 2 + 0.5, 0, 1)
gc.hard_swish(x * 3) == 3 * x * np.clip(x / 2 + 0.5, 0, 1)
gc.hard_tanh(x) == np.clip(x, -1, 1)
a * gc.unsqueeze(x, 1) == a * x[:, None]
gc.div(x, p) == x / p
gc.floor_div(x, p) == np.floor_divide(x, p)
gc.trunc_div(i * 5 - 9, i + 2) == np.trunc((i * 5 - 9) / (i + 2))
gc.cast(x < y, "int64") == (x < y) * 1
gc.cast(i <= 1, "int32") == (i <= 1) * 1
gc.cast(gc.equal(i, 2), "int32") == (i * 1 == 2) * 1
gc.cast(gc.not_equal(i, 2), "int32") == (i * 1 != 2) * 1
gc.logical_xor((x > 0) & (y > 0), ~(x > 1) | (y > x)) == ((x > 0) & (y > 0)) ^ (~(x > 1) | (y > x))
gc.cast(x * 9, "int32") == np.trunc(x * 9).astype(int)
gc.cast(gc.clip(x * 80, -128, 127), "int8") == np.trunc(np.clip(x * 80, -128, 127)).astype(int)
gc.cast(i * 99, "int8") == (i * 99).astype("int8")
gc.isfinite(x / gc.relu(x)) | gc.isnan(x) == x > 0
"""

REDUCTIONS = """\
gc.sum(m, (1, 3)); gc.sum(s, 0); gc.mean(m, 2, keepdims=True); gc.mean(x, 0); gc.max(m, (2, 3))
gc.min(wide, 1, keepdims=True); gc.prod(s, 1); gc.cumsum(s, 1); gc.cumprod(s, 1); gc.argmax(s, 1)
gc.argmax(j, 1); gc.argmin(j, 1); gc.argmin(wide, 1); gc.softmax(s, 1); gc.softmax(wide)
gc.sort(s, 1); gc.argsort(wide)
gc.l1_norm(s, 1) == abs(s).sum(1)
gc.l2_norm(wide, 1) == np.sqrt((wide * wide).sum(1))
gc.sum_squares(s, 2) == (s * s).sum(2)
gc.logsumexp(s, 1) == np.log(np.exp(s).sum(1))
gc.cumsum(s, 1, exclusive=True) == np.cumsum(s, 1) - s
gc.cumsum(s, 1, reverse=True) == np.cumsum(s[:, ::-1], 1)[:, ::-1]
gc.cumsum(s, 2, exclusive=True, reverse=True) == np.cumsum(s[..., ::-1], 2)[..., ::-1] - s
gc.cumprod(s, 1, reverse=True) == np.cumprod(s[:, ::-1], 1)[:, ::-1]
gc.argmax(j, 1, True, last=True) == 2 - j[:, ::-1].argmax(1)[:, None]
gc.log_softmax(s, 2) == np.log(softmax(s))
gc.log_softmax(s, 1) == np.log(softmax(s, 1))
gc.sort(wide, descending=True) == -np.sort(-wide)
gc.argsort(gc.cast(j, "int32")) == np.argsort(j, kind="stable")
gc.topk(wide, 3, largest=False)[0] == np.sort(wide)[:, :3]
gc.topk(s, 2, 1)[1] == np.argsort(-s, 1)[:, :2]
gc.layernorm(s, eps=0.03) == normed(s, (2,), 0.03) * gamma + beta
gc.layernorm(wide) == normed(wide, (1,), 1e-5) * gamma + beta
gc.rmsnorm(wide, eps=0.02) == wide / np.sqrt((wide**2).mean(1, keepdims=True) + 0.02) * gamma
gc.groupnorm(m, 2, eps=0.03) == by_channel(
    normed(m.reshape(len(m), 2, -1), (2,), 0.03).reshape(m.shape), gamma, beta)
gc.instancenorm(m, eps=0.02) == by_channel(normed(m, (2, 3), 0.02), gamma, beta)
gc.batchnorm(m, eps=0.03) == by_channel(
    normed(m, (0, 2, 3), 0.03) if train else m / 1.03**0.5, gamma, beta)
gc.batchnorm(wide, eps=0.01) == (
    normed(wide, (0,), 0.01) if train else wide / 1.01**0.5) * gamma + beta
"""

SHAPES = """\
gc.transpose(m, (0, 2, 3, 1)); gc.concat([s, s2 * 2, s], 1); gc.stack([x, y], 1)
m[:, 1:, ::2, -2:0:-1]; gc.pad(s, ((0, 0), (2, 1), (0, 1)), mode="reflect")
gc.pad(s, ((0, 0), (2, 1), (0, 1)), mode="edge"); gc.flip(s, (1, 2)); gc.roll(s, 2, 1)
gc.repeat(s, 2, 1); gc.tile(s, (1, 2, 3)); gc.tril(a, 1); gc.triu(a, -1)
gc.reshape(m, (gc.N, 6, -1)) == m.reshape(len(m), 6, -1)
gc.transpose(gc.transpose(m, (3, 1, 0, 2)) * 2, (2, 0, 3, 1)) == m.transpose(0, 3, 2, 1) * 2
gc.split(wide, (4, 10, 5))[1] == wide[:, 4:14]
gc.pad(s, ((0, 0), (2, 1), (1, 0)), 0.5) == np.pad(
    s, ((0, 0), (2, 1), (1, 0)), constant_values=0.5)
gc.expand(gc.unsqueeze(x, 1), (gc.N, 3, 4)) == x[:, None].repeat(3, 1)
gc.squeeze(gc.unsqueeze(x, (1, 3)), 3) == x[:, None]
gc.flatten(m) == m.reshape(len(m), -1)
gc.diagonal(a[:, 1:]) == np.diagonal(a[:, 1:], 0, 1, 2)
gc.gather(s, [4, 0, 0, 5], 1) == s[:, [4, 0, 0, 5]]
gc.gather_elements(x, j) == np.take_along_axis(x, j, 1)
gc.gather_nd(a, gc.unsqueeze(j, 2), 1) == np.take_along_axis(a, j[:, :, None], 1)
gc.pick(x, i) == picked(x, i)
gc.one_hot(i, 4, dtype="float32") == np.eye(4)[i]
gc.embedding(j, weight=table) == table[j]
gc.scatter_elements(x, j, y[:, :3], 1) == scattered(x, y, j)
gc.scatter_elements(x, j, y[:, :3], 1, reduction="add") == scattered(x, y, j, np.add)
gc.scatter_elements(x, j, y[:, :3], 1, reduction="max") == scattered(x, y, j, np.maximum)
gc.length_mask(n, 6, dtype="float32") == np.arange(6) < n[:, None]
gc.rotary_positions(a) == rotary(a)
gc.resize(m, scales=(2, 3), mode="nearest") == m.repeat(2, 2).repeat(3, 3)
gc.resize(line, (14,)) == interpolated(line, (np.arange(14) + 0.5) * 9 / 14 - 0.5)
gc.resize(line, (5,), places="align_corners") == interpolated(line, np.arange(5) * 2.0)
gc.resize(line, (6,), places="asymmetric") == interpolated(line, np.arange(6) * 1.5)
gc.resize(line, (4,), mode="nearest", places="asymmetric", rounding="floor") == line[
    ..., [0, 2, 4, 6]]
gc.resize(line, (4,), mode="nearest", places="asymmetric", rounding="ceil") == line[
    ..., [0, 3, 5, 7]]
gc.adaptive_avg_pool(line, 3) == line.reshape(len(line), 4, 3, 3).mean(3)
"""

PRODUCTS = """\
gc.matmul(a, b); a @ w; gc.relu(x @ w)
gc.transpose(b, (0, 2, 1)) @ b == b.transpose(0, 2, 1) @ b
gc.affine(x, weight=w, bias=c) == x @ w + c
gc.relu(gc.affine(x, weight=w, bias=c)) == relu(x @ w + c)
gc.affine(a, 5, axis=-1) == a @ weight + bias
gc.tanh(gc.affine(wide, 37)) == np.tanh(wide @ weight + bias)
gc.conv(m, k, c6, (2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2), groups=2) == plain.conv(
    m, k, c6, (2, 1), ((1, 0), (2, 1)), (1, 2), 2)
gc.conv2d(m, 5, 3, padding=1) == plain.conv(m, weight, bias, pads=((1, 1), (1, 1)))
gc.relu(gc.conv2d(m, 8, 1, 2)) == relu(plain.conv(m, weight, bias, (2, 2)))
gc.conv(line, k1, stride=2, padding=2, dilation=3, groups=4) == plain.conv(
    line, k1, None, (2,), ((2, 2),), (3,), 4)
gc.conv(line[:, :, :1], k1, padding=3, dilation=2, groups=4) == plain.conv(
    line[:, :, :1], k1, pads=((3, 3),), dilation=(2,), groups=4)
gc.conv_transpose(m, kt, stride=(2, 3), padding=1, output_padding=1) == plain.conv_transpose(
    m, kt, (2, 3), 1, 1)
gc.max_pool(m, (3, 2), (2, 1), padding=(1, 0)) == pooled(m, -np.inf).max((-1, -2))
gc.avg_pool(m, (3, 2), (2, 1), padding=(1, 0)) == np.nanmean(pooled(m, np.nan), (-1, -2))
gc.avg_pool(m, (3, 2), (2, 1), padding=(1, 0), count_include_pad=True) == pooled(
    m, 0).mean((-1, -2))
gc.global_avg_pool(m) == m.mean((2, 3), keepdims=True)
gc.global_max_pool(m) == m.max((2, 3), keepdims=True)
gc.attention(a, a, a * 2, scale=0.4) == softmax(0.4 * a @ a.transpose(0, 2, 1)) @ a * 2
gc.attention(a, a, a, causal=True) == softmax(
    a @ a.transpose(0, 2, 1) / 2 + np.triu(np.full((5, 5), -1e30), 1)) @ a
"""

LOSSES = """\
gc.mse_loss(x, y) == ((x - y) ** 2).mean()
gc.mse_loss(x, y, reduction="sum") == ((x - y) ** 2).mean(1).sum()
gc.mse_loss(x, y, weight=p[:, 0]) == (((x - y) ** 2).mean(1) * p[:, 0]).sum() / p[:, 0].sum()
gc.mae_loss(x, y, reduction="none") == abs(x - y).mean(1)
gc.huber_loss(x, y, 0.7) == huber(x - y, 0.7).mean()
gc.log_cosh_loss(x, y) == np.log(np.cosh(x - y)).mean()
gc.poisson_loss(x, p) == (np.exp(x) - p * x).mean()
gc.sigmoid_loss(x, t, pos_weight=2.5) == (2.5 * t * softplus(-x) + (1 - t) * softplus(x)).mean()
gc.softmax_loss(x, i) == plain.nll(np.log(softmax(x)), i)
gc.softmax_loss(x, i, class_weight=[0.5, 1, 2, 3], ignore=1) == plain.nll(
    np.log(softmax(x)), i, [0.5, 1, 2, 3], 1)
gc.softmax_loss(x, i, label_smoothing=0.1) == -(
    (0.9 * np.eye(4)[i] + 0.025) * np.log(softmax(x))).sum(1).mean()
gc.nll_loss(x, i, reduction="sum") == -picked(x, i).sum()
gc.svm_loss(x, i) == margins(x, i).mean()
gc.hinge_loss(x, gc.sign(y), squared=True) == (relu(1 - x * np.sign(y)) ** 2).mean()
gc.kl_loss(gc.log_softmax(x), t) == (t * (np.log(t) - np.log(softmax(x)))).sum(1).mean()
gc.cosine_similarity(x, y) == (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
gc.accuracy(x, i) == (x.argmax(1) == i).mean()
"""

LOOPS = """\
own_loop(s, u, None, 0.5) == states(s, u, None, 0.5)
own_loop(s, u, None, 0.25) == states(s, u, None, 0.25)
own_loop(s, u, n, 0.5) == states(s, u, n, 0.5)
own_loop(s, u, n, 0.5, reverse=True) == states(s, u, n, 0.5, True)
own_loop(long, u, l, 0.5) == states(long, u, l, 0.5)
own_loop(long, u, None, -0.5, reverse=True) == states(long, u, None, -0.5, True)
gc.lstm(s, 4, lengths=n)[0] == lstm(s, n, WEIGHTS)[0]
gc.lstm(s, 4, lengths=n, reverse=True)[0] == lstm(s, n, WEIGHTS, back=True)[0]
gc.lstm(long, 3, lengths=l)[0] == lstm(long, l, WEIGHTS)[0]
gc.gru(s, 4, lengths=n)[1] == gru(s, n, WEIGHTS)[1][0]
gc.gru(s, 4, reset_after=False)[1] == gru(s, None, WEIGHTS, after=False)[1][0]
gc.rnn(s, 4, lengths=n, activation="relu")[0] == rnn(s, n, WEIGHTS, relu)[0]
own_loop(s, u, n, 0.5) + own_loop(s, u, n, 0.5, reverse=True) == (
    states(s, u, n, 0.5) + states(s, u, n, 0.5, True))
own_loop(s, u, gc.clip(n * 2 - 3, 0, 6), 0.5) == states(s, u, np.clip(n * 2 - 3, 0, 6), 0.5)
gc.gru(s, 4, lengths=n, reset_after=False)[1] == gru(s, n, WEIGHTS, after=False)[1][0]
gc.gru(s, 4, initial=x)[1] == gru(s, None, WEIGHTS, start=(x,))[1][0]
gc.gru(s, 4, initial=x, lengths=n, reset_after=False)[1] == gru(
    s, n, WEIGHTS, after=False, start=(x,))[1][0]
"""

EDGES = """\
gc.maximum(x, x + y * 0); gc.minimum(x + y * 0, x); gc.maximum(gc.floor(x), gc.floor(y))
gc.max(gc.stack([x, x], 1), 1); gc.min(gc.stack([x, y, x, y], 1), 1)
gc.sort(gc.tile(x, (1, 2)))[:, ::2]; gc.argmax(gc.round(wide), 1)
gc.relu(gc.floor(x)) + gc.abs(x * 0); (x * 0) ** 1 + (x * 0) ** 2 + (x * 0) ** 0
gc.power(gc.relu(x), 3.0); gc.power(x * 0, p + 1)
gc.prod(gc.concat([x * 0, y, z], 1), 1); gc.cumprod(gc.stack([y, x * 0, z], 1), 1)[:, 0]
gc.max_pool(gc.repeat(line, 2, 2), 2, 2) == line
gc.global_max_pool(gc.tile(line, (1, 1, 2))) == line.max(2, keepdims=True)
gc.argmin(gc.round(s), 1, last=True) == 5 - np.rint(s)[:, ::-1].argmin(1)
gc.argsort(gc.round(wide)) == np.argsort(np.rint(wide), kind="stable")
gc.topk(gc.round(wide), 5)[1] == np.argsort(-np.rint(wide), kind="stable")[:, :5]
gc.power(x, 0.0) + x**1 == x + 1
gc.l2_norm(gc.concat([x, y * 0], 1), 1) == np.sqrt((x * x).sum(1))
"""

FORMULAS = ELEMENTS + REDUCTIONS + SHAPES + PRODUCTS + LOSSES + LOOPS + EDGES + SLOPES + OPTIONS
