"""Formulas of gradients, which checks differentiate again: see `formulas.py`."""

SLOPES = """\
slope_of(gc.tanh(x) * gc.exp(u), x) == grown(np.tanh, x) * np.exp(u)
slope_of(gc.sin(x) / gc.cosh(y), y) == np.sin(x) * grown(lambda y: 1 / np.cosh(y), y)
slope_of(gc.log(p) * gc.sqrt(q), p) == np.sqrt(q) / p
slope_of(gc.sqrt(p) + gc.reciprocal(p), p) == grown(lambda p: np.sqrt(p) + 1 / p, p)
slope_of(gc.power(p, x), p) == x * p ** (x - 1)
slope_of(gc.power(p, x), x) == np.log(p) * p**x
slope_of(gc.asin(u) + gc.atanh(u) + gc.tan(u), u) == grown(
    lambda u: np.arcsin(u) + np.arctanh(u) + np.tan(u), u)
slope_of(gc.atan(x) + gc.asinh(x), x) == 1 / (1 + x * x) + 1 / np.sqrt(1 + x * x)
slope_of(gc.sigmoid(x) + gc.softplus(x) + gc.erf(x), x) == (
    sigmoid(x) * (2 - sigmoid(x)) + 2 / np.pi**0.5 * np.exp(-x * x))
slope_of(gc.silu(x) * gc.log1p(p), x) == grown(lambda x: x / (1 + np.exp(-x)), x) * np.log1p(p)
slope_of(gc.gelu(x, "tanh"), x) == grown(
    lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))), x)
slope_of(gc.elu(x, 0.7) * y, x) == np.where(x > 0, 1, 0.7 * np.exp(x)) * y
slope_of(gc.softmax(x) ** 2, x) == grown(
    lambda x: (np.exp(x) / np.exp(x).sum(1, keepdims=True)) ** 2, x)
slope_of(gc.logsumexp(s, 1) ** 2, s) == grown(lambda s: np.log(np.exp(s).sum(1)) ** 2, s)
slope_of(gc.layernorm(x, eps=0.03), x) == grown(lambda x: normed(x, (1,), 0.03), x, gamma)
slope_of(gc.rmsnorm(x, eps=0.03), x) == grown(
    lambda x: x / np.sqrt((x * x).mean(1, keepdims=True) + 0.03), x, gamma)
slope_of(gc.l2_norm(x, 1) ** 3, x) == 3 * np.sqrt((x * x).sum(1, keepdims=True)) * x
slope_of(gc.tanh(a @ w), a) == (1 - np.tanh(a @ w) ** 2) @ w.T
slope_of(gc.tanh(gc.matmul(a, b)), b) == a.transpose(0, 2, 1) @ (1 - np.tanh(a @ b) ** 2)
slope_of(gc.conv(line, k1, groups=4) ** 2, line)[:, :, 2:-2] == 2 * sum(
    k1[:, 0, i, None] * plain.conv(line, k1, groups=4, stride=(1,), pads=((0, 0),), dilation=(1,))
    [:, :, 2 - i : 7 - i] for i in range(3))
slope_of(gc.cumprod(x, 1), x) == grown(lambda x: np.cumprod(x, 1), x)
slope_of(gc.batchnorm(wide, eps=0.03) ** 2, wide) == batch_slope(wide, gamma, beta, 0.03, train)
slope_of(gc.groupnorm(line[:, :, :2], 2, eps=0.03) ** 2, line)[:, :, :2] == grown(
    lambda v: by_channel(normed(v.reshape(len(v), 2, -1), (2,), 0.03).reshape(v.shape), gamma, beta)
    ** 2, line[:, :, :2])
slope_of(gc.instancenorm(s, eps=0.03) ** 2, s) == grown(
    lambda v: by_channel(normed(v, (2,), 0.03), gamma, beta) ** 2, s)
slope_of(gc.softmax_loss(x, i, weight=p[:, 0], reduction="sum"), x) == p[:, :1] * (
    softmax(x) - np.eye(4)[i])
slope_of(gc.softmax_loss(x, i, label_smoothing=0.1, class_weight=[0.5, 1, 2, 3]), x) == grown(
    lambda x: smoothed(x, i, 0.1, np.array([0.5, 1, 2, 3])), x)
slope_of(gc.huber_loss(x, y, 0.7, reduction="none") ** 2, x) == grown(lambda x: np.where(
    abs(x - y) < 0.7, 0.5 * (x - y) ** 2, 0.7 * ((x - y) * np.sign((x - y).real) - 0.7 / 2)
    ).mean(1) ** 2, x)
slope_of(gc.log_cosh_loss(x, y), x) == np.tanh(x - y) / x.size
slope_of(gc.poisson_loss(x, p, reduction="sum"), x) == (np.exp(x) - p) / 4
slope_of(gc.sigmoid_loss(x, t, pos_weight=2.5), x) == (
    (1 - t) * sigmoid(x) - 2.5 * t * sigmoid(-x)) / x.size
slope_of(gc.mse_loss(x, y, weight=p[:, 0]), x) == p[:, :1] * (x - y) / 2 / p[:, 0].sum()
slope_of(gc.kl_loss(gc.log_softmax(x), t, reduction="sum"), x) == softmax(x) * t.sum(
    1, keepdims=True) - t
slope_of(gc.cosine_similarity(x, y) ** 2, x) == grown(lambda x: cosine(x, y) ** 2, x)
slope_of(gc.attention(a, a, a, causal=True) ** 2, a) == grown(lambda a: (softmax(
    a @ a.swapaxes(1, 2) / 2 + np.triu(np.full((5, 5), -1e30), 1)) @ a) ** 2, a)
slope_of(gc.max_pool(line * line, 3, 2, padding=1), line) == grown(
    lambda v: windows(v * v, (3,), (2,), ((1, 1),), (1,), -np.inf).max(-1), line)
slope_of(gc.avg_pool(line, 3, 2, dilation=2) ** 2, line) == grown(
    lambda v: windows(v, (3,), (2,), ((0, 0),), (2,)).mean(-1) ** 2, line)
slope_of(gc.conv(line, k1, stride=2, padding=1, groups=4) ** 2, line) == grown(
    lambda v: plain.conv(v, k1, None, (2,), ((1, 1),), (1,), 4) ** 2, line)
slope_of(gc.conv_transpose(m, kt, stride=2, groups=2) ** 2, kt)[:, :, :1, :1] == (
    2 * np.einsum("nghw,ngohw->go", m, plain.conv_transpose(m, kt, (2, 2), 0, 0, groups=2)
    [:, :, :13:2, :11:2].reshape(-1, 2, 3, 7, 6).repeat(2, 1)))[:, :, None, None]
slope_of(own_loop(s, u, n, 0.5) ** 2, s) == grown(lambda s: states(s, u, n, 0.5) ** 2, s)
slope_of(gc.gru(s, 2, lengths=n)[1] ** 2, s) == grown(
    lambda s: gru(s, n, True, weight_ih, weight_hh, bias_ih, bias_hh) ** 2, s)
slope_of(gc.gather(s, [4, 0, 0, 5], 1) ** 2, s) == grown(lambda s: s[:, [4, 0, 0, 5]] ** 2, s)
slope_of(gc.gather_elements(x, j) ** 3, x) == grown(lambda x: np.take_along_axis(x, j, 1) ** 3, x)
slope_of(gc.sort(wide) * gc.cumsum(wide, 1), wide) == grown(
    lambda v: np.sort(v) * np.cumsum(v, 1), wide)
slope_of(gc.cumprod(x, 1, exclusive=True, reverse=True), x) == grown(lambda x: np.concatenate(
    [np.cumprod(x[:, :0:-1], 1)[:, ::-1], x[:, :1] * 0 + 1], 1), x)
slope_of(gc.pad(s, ((0, 0), (2, 1), (0, 1)), mode="reflect") ** 2, s) == grown(
    lambda s: np.pad(s, ((0, 0), (2, 1), (0, 1)), "reflect") ** 2, s)
slope_of(s[:, ::2, -2::-1] ** 2, s) == grown(lambda s: s[:, ::2, -2::-1] ** 2, s)
slope_of(gc.resize(line, (14,)) ** 2, line) == grown(
    lambda v: interpolated(v, (np.arange(14) + 0.5) * 9 / 14 - 0.5) ** 2, line)
"""
