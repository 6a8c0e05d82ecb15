"""Formulas of gradients, which checks differentiate again: see `formulas.py`."""

SLOPES = """\
slope_of(gc.tanh(x) * gc.exp(u), x) == grown(np.tanh, x) * np.exp(u)
slope_of(gc.sin(x) / gc.cosh(y), y) == np.sin(x) * grown(lambda y: 1 / np.cosh(y), y)
slope_of(gc.log(p) * gc.sqrt(q), p) == np.sqrt(q) / p
gc.sqrt(p) + gc.reciprocal(p) by p ~ np.sqrt(p) + 1 / p
slope_of(gc.power(p, x), p) == x * p ** (x - 1)
slope_of(gc.power(p, x), x) == np.log(p) * p**x
gc.asin(u) + gc.atanh(u) + gc.tan(u) by u ~ np.arcsin(u) + np.arctanh(u) + np.tan(u)
slope_of(gc.atan(x) + gc.asinh(x), x) == 1 / (1 + x * x) + 1 / np.sqrt(1 + x * x)
slope_of(gc.sigmoid(x) + gc.softplus(x) + gc.erf(x), x) == (
    sigmoid(x) * (2 - sigmoid(x)) + 2 / np.pi**0.5 * np.exp(-x * x))
slope_of(gc.silu(x) * gc.log1p(p), x) == grown(lambda x: x / (1 + np.exp(-x)), x) * np.log1p(p)
gc.gelu(x, "tanh") by x ~ 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
slope_of(gc.elu(x, 0.7) * y, x) == np.where(x > 0, 1, 0.7 * np.exp(x)) * y
gc.softmax(x) ** 2 by x ~ (np.exp(x) / np.exp(x).sum(1, keepdims=True)) ** 2
gc.logsumexp(s, 1) ** 2 by s ~ np.log(np.exp(s).sum(1)) ** 2
gc.layernorm(x, eps=0.03) by x ~ normed(x, (1,), 0.03) * gamma
gc.rmsnorm(x, eps=0.03) by x ~ x / np.sqrt((x * x).mean(1, keepdims=True) + 0.03) * gamma
slope_of(gc.l2_norm(x, 1) ** 3, x) == 3 * np.sqrt((x * x).sum(1, keepdims=True)) * x
slope_of(gc.tanh(a @ w), a) == (1 - np.tanh(a @ w) ** 2) @ w.T
slope_of(gc.tanh(gc.matmul(a, b)), b) == a.transpose(0, 2, 1) @ (1 - np.tanh(a @ b) ** 2)
slope_of(gc.conv(line, k1, groups=4) ** 2, line)[:, :, 2:-2] == 2 * sum(
    k1[:, 0, i, None] * plain.conv(line, k1, groups=4)[:, :, 2 - i : 7 - i] for i in range(3))
gc.cumprod(x, 1) by x ~ np.cumprod(x, 1)
slope_of(gc.batchnorm(wide, eps=0.03) ** 2, wide) == batch_slope(wide, gamma, beta, 0.03, train)
slope_of(gc.groupnorm(line[:, :, :2], 2, eps=0.03) ** 2, line)[:, :, :2] == grown(
    lambda v: by_channel(normed(v.reshape(len(v), 2, -1), (2,), 0.03).reshape(v.shape), gamma, beta)
    ** 2, line[:, :, :2])
gc.instancenorm(s, eps=0.03) ** 2 by s ~ by_channel(normed(s, (2,), 0.03), gamma, beta) ** 2
slope_of(gc.softmax_loss(x, i, weight=p[:, 0], reduction="sum"), x) == p[:, :1] * (
    softmax(x) - np.eye(4)[i])
gc.softmax_loss(x, i, label_smoothing=0.1, class_weight=[0.5, 1, 2, 3]) by x ~ (
    smoothed(x, i, 0.1, np.array([0.5, 1, 2, 3])))
gc.huber_loss(x, y, 0.7, reduction="none") ** 2 by x ~ huber(x - y, 0.7).mean(1) ** 2
slope_of(gc.log_cosh_loss(x, y), x) == np.tanh(x - y) / x.size
slope_of(gc.poisson_loss(x, p, reduction="sum"), x) == (np.exp(x) - p) / 4
slope_of(gc.sigmoid_loss(x, t, pos_weight=2.5), x) == (
    (1 - t) * sigmoid(x) - 2.5 * t * sigmoid(-x)) / x.size
slope_of(gc.mse_loss(x, y, weight=p[:, 0]), x) == p[:, :1] * (x - y) / 2 / p[:, 0].sum()
slope_of(gc.kl_loss(gc.log_softmax(x), t, reduction="sum"), x) == softmax(x) * t.sum(
    1, keepdims=True) - t
gc.cosine_similarity(x, y) ** 2 by x ~ cosine(x, y) ** 2
gc.attention(a, a, a, causal=True) ** 2 by a ~ (
    (softmax(a @ a.swapaxes(1, 2) / 2 + np.triu(np.full((5, 5), -1e30), 1)) @ a) ** 2)
gc.max_pool(line * line, 3, 2, padding=1) by line ~ (
    windows(line * line, (3,), (2,), ((1, 1),), fill=-np.inf).max(-1))
gc.avg_pool(line, 3, 2, dilation=2) ** 2 by line ~ (
    windows(line, (3,), (2,), dilation=(2,)).mean(-1) ** 2)
gc.conv(line, k1, stride=2, padding=1, groups=4) ** 2 by line ~ (
    plain.conv(line, k1, None, (2,), ((1, 1),), groups=4) ** 2)
slope_of(gc.conv_transpose(m, kt, stride=2, groups=2) ** 2, kt)[:, :, :1, :1] == (
    2 * np.einsum("nghw,ngohw->go", m, plain.conv_transpose(m, kt, (2, 2), groups=2)
    [:, :, :13:2, :11:2].reshape(-1, 2, 3, 7, 6).repeat(2, 1)))[:, :, None, None]
own_loop(s, u, n, 0.5) ** 2 by s ~ states(s, u, n, 0.5) ** 2
gc.gru(s, 2, lengths=n)[1] ** 2 by s ~ gru(s, n, WEIGHTS)[1][0] ** 2
gc.gather(s, [4, 0, 0, 5], 1) ** 2 by s ~ s[:, [4, 0, 0, 5]] ** 2
gc.gather_elements(x, j) ** 3 by x ~ np.take_along_axis(x, j, 1) ** 3
gc.sort(wide) * gc.cumsum(wide, 1) by wide ~ np.sort(wide) * np.cumsum(wide, 1)
gc.cumprod(x, 1, exclusive=True, reverse=True) by x ~ (
    np.concatenate([np.cumprod(x[:, :0:-1], 1)[:, ::-1], x[:, :1] * 0 + 1], 1))
gc.pad(s, ((0, 0), (2, 1), (0, 1)), mode="reflect") ** 2 by s ~ (
    np.pad(s, ((0, 0), (2, 1), (0, 1)), "reflect") ** 2)
s[:, ::2, -2::-1] ** 2 by s ~ s[:, ::2, -2::-1] ** 2
gc.resize(line, (14,)) ** 2 by line ~ interpolated(line, (np.arange(14) + 0.5) * 9 / 14 - 0.5) ** 2
"""
