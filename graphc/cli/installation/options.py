"""Formulas of functions with options that others do not set: see `formulas.py`."""

OPTIONS = """\
gc.sum(s, 2, keepdims=True) + gc.max(s, 2, keepdims=True)
gc.prod(s, 1, keepdims=True) * gc.logsumexp(s, 1, keepdims=True) == s.prod(1, keepdims=True) * (
    np.log(np.exp(s).sum(1, keepdims=True)))
gc.l1_norm(s, 1, keepdims=True) + gc.sum_squares(s, 1, keepdims=True) == (
    abs(s) + s * s).sum(1, keepdims=True)
gc.l2_norm(s, 2, keepdims=True) == np.sqrt((s * s).sum(2, keepdims=True))
gc.argmin(j, 1, True) == j.argmin(1)[:, None]
gc.argsort(s, 1, descending=True) == np.argsort(-s, 1)
gc.cumprod(s, 1, exclusive=True) == np.concatenate([s[:, :1] * 0 + 1, np.cumprod(s, 1)[:, :-1]], 1)
gc.batchnorm(m, eps=0.03, frozen=True) == by_channel(m / 1.03**0.5, gamma, beta)
gc.mul(gc.sub(x, y), z) == (x - y) * z
gc.cast(gc.logical_or(gc.greater(x, y), gc.logical_not(gc.less(x, z))), "int32") == (
    (x > y) | (x >= z)) * 1
gc.cast(gc.logical_and(gc.greater_equal(i, 2), gc.less_equal(i, 2)), "int32") == (i * 1 == 2) * 1
gc.cast(gc.isinf(x / gc.floor(p)), "int32") == (p < 1) * 1
gc.cast(gc.cast(i * 80, "uint8"), "int32") == i * 80
gc.embedding(j, 5, 3) == weight[j]
gc.embedding(gc.cast(i + 252, "uint8"), weight=gc.tile(table, (52, 1))) == np.tile(table, (52, 1))[
    i + 252]
gc.broadcast_to(gc.unsqueeze(x, 2), (gc.N, 4, 3)) == x[:, :, None].repeat(3, 2)
gc.split(m, 3, axis=3)[2] == m[..., 4:]
gc.resize(m, (5,), axes=(2,), places="align_corners") == interpolated(
    m.swapaxes(2, 3), np.arange(5) * 1.5).swapaxes(2, 3)
gc.gather_elements(a, gc.expand(gc.unsqueeze(j, 2), (gc.N, 3, 4)), 1) == np.take_along_axis(
    a, j[:, :, None].repeat(4, 2), 1)
gc.scatter_nd(table, gc.unsqueeze(i, 1), x[:, :3], reduction="add") == summed(
    table, i, x[:, :3])
gc.cosine_similarity(s, s2, 1, eps=0.5) == (s * s2).sum(1) / (
    np.maximum(np.sqrt((s * s).sum(1)), 0.5) * np.maximum(np.sqrt((s2 * s2).sum(1)), 0.5))
gc.cosine_similarity(x / 9, y / 9, eps=0.3) == (x * y / 81).sum(1) / (
    np.maximum(np.sqrt((x * x).sum(1)) / 9, 0.3) * np.maximum(np.sqrt((y * y).sum(1)) / 9, 0.3))
gc.sinusoidal_positions(a) == a + positions(a)
gc.learned_positions(a) == a + weight
gc.attention(a, a, a * 2, mask=gc.unsqueeze(s[:, :5, 0], 1)) == softmax(
    a @ a.transpose(0, 2, 1) / 2 + s[:, None, :5, 0]) @ a * 2
gc.max_pool(m, 2, 1, dilation=(3, 2)) == windows(m, (2, 2), dilation=(3, 2)).max((-1, -2))
gc.max_pool(line, 3, 2, padding=2, dilation=2) == windows(
    line, (3,), (2,), ((2, 2),), (2,), -np.inf).max(-1)
gc.avg_pool(m, 2, (1, 2), dilation=(3, 2)) == windows(
    m, (2, 2), (1, 2), dilation=(3, 2)).mean((-1, -2))
gc.max_pool(m, (2, 3), (3, 2), ceil=True) == windows(
    m, (2, 3), (3, 2), ((0, 1), (0, 1)), fill=-np.inf).max((-1, -2))
gc.avg_pool(m, (2, 3), (3, 2), ceil=True) == np.nanmean(
    windows(m, (2, 3), (3, 2), ((0, 1), (0, 1)), fill=np.nan), (-1, -2))
gc.max_pool(m[:, :, :6], (2, 3)) == m[:, :, :6].reshape(len(m), 4, 3, 2, 2, 3).max((3, 5))
gc.avg_pool(m[:, :, :6], (3, 2)) == m[:, :, :6].reshape(len(m), 4, 2, 3, 3, 2).mean((3, 5))
gc.conv1d(line, 5, 3, padding=1, dilation=2) == plain.conv(
    line, weight, bias, pads=((1, 1),), dilation=(2,))
gc.conv2d(m, 4, 3, dilation=2, groups=2, bias=False) == plain.conv(
    m, weight, dilation=(2, 2), groups=2)
gc.conv3d(gc.unsqueeze(m, 1), 3, 2, 2) == plain.conv(m[:, None], weight, bias, (2, 2, 2))
gc.conv_transpose(m, kt, c, (1, 2), dilation=(2, 1)) == plain.conv_transpose(
    m, kt, (1, 2), 0, 0, (2, 1)) + c[:, None, None]
gc.conv_transpose(m, kt, stride=2, padding=1, groups=2) == plain.conv_transpose(
    m, kt, (2, 2), 1, 0, groups=2)
gc.conv_transpose1d(line, 5, 3, 2) == plain.conv_transpose(
    line[:, :, None], weight[:, :, None], (1, 2))[:, :, 0] + bias[:, None]
gc.conv_transpose2d(m, 2, 3, 2, padding=1, bias=False) == plain.conv_transpose(
    m, weight, (2, 2), 1, 0)
gc.mae_loss(x, y, weight=p[:, 0]) == mean_of(abs(x - y).mean(1), p[:, 0])
gc.huber_loss(x, y, 0.7, weight=p[:, 0], reduction="sum") == (
    p[:, 0] * huber(x - y, 0.7).mean(1)).sum()
gc.log_cosh_loss(x, y, weight=p[:, 0], reduction="none") == (
    np.log(np.cosh(x - y)).mean(1) * p[:, 0])
gc.poisson_loss(x, p, weight=q[:, 0], reduction="none") == (np.exp(x) - p * x).mean(1) * q[:, 0]
gc.sigmoid_loss(x, t, weight=p[:, 0], reduction="sum") == (
    (softplus(x) - t * x).mean(1) * p[:, 0]).sum()
gc.softmax_loss(x, i, weight=p[:, 0], reduction="sum") == (
    -np.log(picked(softmax(x), i)) * p[:, 0]).sum()
gc.softmax_loss(x, i, weight=p[:, 0], class_weight=[0.5, 1, 2, 3]) == mean_of(
    -np.log(picked(softmax(x), i)), p[:, 0] * np.array([0.5, 1, 2, 3])[i])
gc.nll_loss(x, i, weight=p[:, 0], class_weight=[0.5, 1, 2, 3], ignore=1) == mean_of(
    -picked(x, i), p[:, 0] * np.array([0.5, 0, 2, 3])[i])
gc.softmax_loss(x, i, label_smoothing=0.1, ignore=1) == mean_of(
    -((0.9 * np.eye(4)[i] + 0.025) * np.log(softmax(x))).sum(1), i * 1 != 1)
gc.svm_loss(x, i, weight=p[:, 0], reduction="none") == p[:, 0] * margins(x, i)
gc.hinge_loss(x, gc.sign(y), weight=p[:, 0], reduction="sum") == (
    relu(1 - x * np.sign(y)).mean(1) * p[:, 0]).sum()
gc.kl_loss(gc.log_softmax(x), t, weight=p[:, 0]) == mean_of(
    (t * (np.log(t) - np.log(softmax(x)))).sum(1), p[:, 0])
gc.cosine_loss(x, y, gc.sign(z[:, 0]), margin=0.2) == np.where(
    z[:, 0] > 0, 1 - cosine(x, y), relu(cosine(x, y) - 0.2)).mean()
gc.cosine_loss(x, y, gc.sign(z[:, 0]), weight=p[:, 0], reduction="sum") == (p[:, 0] * np.where(
    z[:, 0] > 0, 1 - cosine(x, y), relu(cosine(x, y)))).sum()
gc.lstm(s, 4, initial=(x, y))[1][1] == lstm(s, None, WEIGHTS, start=(x, y))[1][1]
gc.lstm(s, 4, lengths=n, bias=False)[1][0] == lstm(s, n, weight_ih, weight_hh, 0, 0)[1][0]
gc.lstm(s, 4, lengths=n, bidirectional=True)[0] == np.concatenate([
    lstm(s, n, WEIGHTS)[0], lstm(s, n, reverse__WEIGHTS, back=True)[0]], 2)
gc.lstm(s, 4, layers=2)[0] == lstm(
    lstm(s, None, layer1__WEIGHTS)[0], None, layer2__WEIGHTS)[0]
gc.gru(s, 4, lengths=n, bidirectional=True)[1] == np.concatenate([
    gru(s, n, WEIGHTS)[1][0], gru(s, n, reverse__WEIGHTS, back=True)[1][0]], 1)
gc.gru(s, 4, layers=2, lengths=n, reverse=True)[1][:, 0] == gru(
    s, n, layer1__WEIGHTS, back=True)[1][0]
gc.gru(s, 4, bias=False)[1] == gru(s, None, weight_ih, weight_hh, zeros(12), zeros(12))[1][0]
gc.rnn(s, 4, initial=x, bias=False, reverse=True)[0] == rnn(
    s, None, weight_ih, weight_hh, 0, 0, start=(x,), back=True)[0]
gc.lstm(s, 4, projection=2)[0] == lstm(s, None, WEIGHTS, to=weight_hr)[0]
gc.rnn(s, 4, lengths=n, layers=2)[1][:, 1] == rnn(
    rnn(s, n, layer1__WEIGHTS)[0], n, layer2__WEIGHTS)[1][0]
gc.rnn(s, 4, bidirectional=True)[0][..., 4:] == rnn(s, None, reverse__WEIGHTS, back=True)[0]
"""
