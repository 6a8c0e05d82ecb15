"""The hand-written NumPy steps that graphc is measured against, unchanged from the harness
that the peers' numbers were taken with: workloads, float64 reference, a step in the style of
course layers (NumpyNaive) and one with preallocated buffers (NumpyBuffers).
"""
import time

pc = time.perf_counter
LR, MU, EPS, BN_M = 1e-3, 0.9, 1e-5, 0.9
VERIFY_STEPS = 5

W = {
    "tiny": dict(sizes=[64, 64, 64, 10], batch=32, pool=64),
    "mnist": dict(sizes=[784, 512, 256, 10], batch=128, pool=32),
    "seed": dict(sizes=[784, 512, 256, 10], batch=128, pool=32, bn=True, keep=0.8),
    # deep: 410k ReLU inputs a step, so some lie within float32 rounding of zero and flip; the small
    # lr keeps a flip's effect on the verified losses far below the tolerance (a wrong gradient is not)
    "deep": dict(sizes=[128] * 51 + [10], batch=64, pool=64, lr=1e-5),
    "wide": dict(sizes=[1024, 4096, 4096, 1000], batch=256, pool=8),
}
INFER = ["tiny", "mnist", "wide"]


# ------------------------------------------------------------------ data, reference

def make_params(wl):
    import numpy as np
    s = W[wl]
    r = np.random.RandomState(7)
    f = lambda a: np.ascontiguousarray(a, dtype=np.float32)
    ps = []
    n = len(s["sizes"]) - 1
    for i in range(n):
        a, b = s["sizes"][i], s["sizes"][i + 1]
        d = dict(W=f(r.randn(a, b) * (2.0 / a) ** .5), b=f(r.randn(b) * .01))
        if s.get("bn") and i < n - 1:
            d["g"] = f(1 + .1 * r.randn(b))
            d["t"] = f(.1 * r.randn(b))
        ps.append(d)
    return ps


def make_pool(wl, batch=None, n=None):
    import numpy as np
    s = W[wl]
    B = batch or s["batch"]
    r = np.random.RandomState(11)
    return [(r.randn(B, s["sizes"][0]).astype(np.float32),
             r.randint(0, s["sizes"][-1], B).astype(np.int64)) for _ in range(n or s["pool"])]


def reference_losses(wl, x, y, steps):
    """float64, dropout off; losses of `steps` updates on one batch."""
    import numpy as np
    ps = [{k: v.astype(np.float64) for k, v in d.items()} for d in make_params(wl)]
    vs = [{k: 0.0 for k in d} for d in ps]
    x = x.astype(np.float64); N = len(y); out = []
    for _ in range(steps):
        h, cache = x, []
        for i, d in enumerate(ps):
            inp = h; z = inp @ d["W"] + d["b"]; c = None
            if "g" in d:
                m = z.mean(0); v = z.var(0); istd = 1 / np.sqrt(v + EPS); xh = (z - m) * istd
                c = (xh, istd); z = xh * d["g"] + d["t"]
            h = np.maximum(z, 0) if i < len(ps) - 1 else z
            cache.append((inp, z, c))
        e = np.exp(h - h.max(1, keepdims=True)); p = e / e.sum(1, keepdims=True)
        out.append(float(-np.log(p[np.arange(N), y]).mean()))
        p[np.arange(N), y] -= 1; dh = p / N
        for i in reversed(range(len(ps))):
            d = ps[i]; inp, z, c = cache[i]; g = {}
            if i < len(ps) - 1: dh = dh * (z > 0)
            if c is not None:
                xh, istd = c; g["g"] = (dh * xh).sum(0); g["t"] = dh.sum(0)
                dx = dh * d["g"]; dh = istd * (dx - dx.mean(0) - xh * (dx * xh).mean(0))
            g["W"] = inp.T @ dh; g["b"] = dh.sum(0); nxt = dh @ d["W"].T
            for k in g:
                vs[i][k] = MU * vs[i][k] + g[k]; d[k] = d[k] - W[wl].get("lr", LR) * vs[i][k]
            dh = nxt
    return out

class Base:
    pkgs = ["numpy"]          # distributions whose installed size counts
    imp = "import numpy"
    workloads = list(W)       # for train
    infers = INFER
    env = {}
    note = ""
    def __init__(self, threads): self.threads = threads


class NumpyNaive(Base):
    """CS231n-style layers.py: plain allocating functions."""
    note = "allocating layers.py style; also computes dx of the first layer"

    def train(self, wl, keep, lr):
        import numpy as np

        def affine_forward(x, w, b):
            return x.reshape(x.shape[0], -1).dot(w) + b, (x, w, b)

        def affine_backward(dout, cache):
            x, w, b = cache
            return (dout.dot(w.T).reshape(x.shape),
                    x.reshape(x.shape[0], -1).T.dot(dout), np.sum(dout, axis=0))

        def relu_forward(x): return np.maximum(x, 0), x
        def relu_backward(dout, x): return dout * (x > 0)

        def batchnorm_forward(x, gamma, beta, bn):
            mean = x.mean(axis=0); var = x.var(axis=0)
            std = np.sqrt(var + EPS); xhat = (x - mean) / std
            bn["m"] = BN_M * bn["m"] + (1 - BN_M) * mean
            bn["v"] = BN_M * bn["v"] + (1 - BN_M) * var
            return gamma * xhat + beta, (xhat, std, gamma)

        def batchnorm_backward(dout, cache):
            xhat, std, gamma = cache; N = dout.shape[0]
            dgamma = np.sum(dout * xhat, axis=0); dbeta = np.sum(dout, axis=0)
            dx = (gamma / std / N) * (N * dout - dbeta - xhat * dgamma)
            return dx, dgamma, dbeta

        def dropout_forward(x, keep):
            mask = ((np.random.rand(*x.shape) < keep) / keep).astype(x.dtype)
            return x * mask, mask

        def softmax_loss(x, y):
            p = np.exp(x - np.max(x, axis=1, keepdims=True))
            p /= np.sum(p, axis=1, keepdims=True)
            N = x.shape[0]
            loss = -np.sum(np.log(p[np.arange(N), y])) / N
            dx = p.copy(); dx[np.arange(N), y] -= 1; dx /= N
            return loss, dx

        def sgd_momentum(w, dw, v):
            v = MU * v - lr * dw
            return w + v, v

        params, vel, bns = {}, {}, {}
        ps = make_params(wl); L = len(ps)
        for i, d in enumerate(ps):
            for k, a in d.items():
                params[k + str(i)] = a; vel[k + str(i)] = np.zeros_like(a)
            if "g" in d: bns[i] = dict(m=np.zeros_like(d["g"]), v=np.ones_like(d["g"]))

        def step(x, y):
            h = x; caches = []
            for i in range(L):
                h, ca = affine_forward(h, params[f"W{i}"], params[f"b{i}"]); cb = cr = cd = None
                if i < L - 1:
                    if i in bns: h, cb = batchnorm_forward(h, params[f"g{i}"], params[f"t{i}"], bns[i])
                    h, cr = relu_forward(h)
                    if keep and i in bns: h, cd = dropout_forward(h, keep)
                caches.append((ca, cb, cr, cd))
            loss, dh = softmax_loss(h, y); grads = {}
            for i in reversed(range(L)):
                ca, cb, cr, cd = caches[i]
                if cd is not None: dh = dh * cd
                if cr is not None: dh = relu_backward(dh, cr)
                if cb is not None: dh, grads[f"g{i}"], grads[f"t{i}"] = batchnorm_backward(dh, cb)
                dh, grads[f"W{i}"], grads[f"b{i}"] = affine_backward(dh, ca)
            for k in grads:
                params[k], vel[k] = sgd_momentum(params[k], grads[k], vel[k])
            return loss
        return step, float

    def infer(self, wl, batch):
        import numpy as np
        ps = make_params(wl)
        def f(x):
            for i, d in enumerate(ps):
                x = x.reshape(x.shape[0], -1).dot(d["W"]) + d["b"]
                if i < len(ps) - 1: x = np.maximum(x, 0)
            return x
        return f


class NumpyBuffers(Base):
    """Hand-written with out= buffers, flat parameter/gradient/velocity arrays."""
    note = "out= buffers, flat params, cache-blocked SGD, no dx for the first layer"

    def train(self, wl, keep, lr):
        import numpy as np
        ps = make_params(wl); L = len(ps); B = W[wl]["batch"]; f32 = np.float32
        n = sum(a.size for d in ps for a in d.values())
        P = np.empty(n, f32); G = np.zeros(n, f32); V = np.zeros(n, f32)
        o = 0; p, g = [], []
        for d in ps:
            pd, gd = {}, {}
            for k, a in d.items():
                pd[k] = P[o:o + a.size].reshape(a.shape); pd[k][...] = a
                gd[k] = G[o:o + a.size].reshape(a.shape); o += a.size
            p.append(pd); g.append(gd)
        CH = 1 << 15
        T = np.empty(min(n, CH), f32)
        chunks = [(P[i:i + CH], G[i:i + CH], V[i:i + CH], T[:min(CH, n - i)]) for i in range(0, n, CH)]
        H = [np.empty((B, d["W"].shape[1]), f32) for d in ps]       # activations
        D = [np.empty_like(h) for h in H]                           # their gradients
        M = [np.empty(h.shape, bool) for h in H]
        bn = ["g" in d for d in ps]
        XH = [np.empty_like(h) if bn[i] else None for i, h in enumerate(H)]
        DM = [np.empty_like(h) if bn[i] else None for i, h in enumerate(H)]
        T2 = [np.empty_like(h) if bn[i] else None for i, h in enumerate(H)]
        vecs = [[np.empty(h.shape[1], f32) for _ in range(4)] if bn[i] else None for i, h in enumerate(H)]
        run = [(np.zeros(h.shape[1], f32), np.ones(h.shape[1], f32)) if bn[i] else None for i, h in enumerate(H)]
        rows = np.arange(B); red = np.empty((B, 1), f32); ones = np.full(B, 1, f32)
        rng = np.random.Generator(np.random.SFC64(3)); kscale = f32(1 / keep) if keep else None
        WT = [d["W"].T for d in p]; HT = [h.T for h in H]
        dot, mul, add, sub, maxi, gt = np.dot, np.multiply, np.add, np.subtract, np.maximum, np.greater
        invB, lr32, mu32, zero, bm, obm = f32(1 / B), f32(lr), f32(MU), f32(0), f32(BN_M), f32(1 - BN_M)

        def step(x, y):
            h = x
            for i in range(L):
                q = p[i]; z = H[i]
                dot(h, q["W"], out=z); add(z, q["b"], out=z)
                if i < L - 1:
                    if bn[i]:
                        mean, var, istd, _ = vecs[i]; xh, t = XH[i], T2[i]
                        dot(ones, z, out=mean); mul(mean, invB, out=mean); sub(z, mean, out=xh)
                        mul(xh, xh, out=t); dot(ones, t, out=var); mul(var, invB, out=var)
                        add(var, f32(EPS), out=istd); np.sqrt(istd, out=istd); np.reciprocal(istd, out=istd)
                        mul(xh, istd, out=xh); mul(xh, q["g"], out=z); add(z, q["t"], out=z)
                        rm, rv = run[i]
                        mul(rm, bm, out=rm); mul(mean, obm, out=mean); add(rm, mean, out=rm)
                        mul(rv, bm, out=rv); mul(var, obm, out=var); add(rv, var, out=rv)
                    maxi(z, zero, out=z)
                    gt(z, zero, out=M[i])
                    if keep and bn[i]:
                        m = DM[i]; rng.random(out=m, dtype=f32)
                        np.less(m, f32(keep), out=m); mul(m, kscale, out=m); mul(z, m, out=z)
                h = z
            h.max(axis=1, keepdims=True, out=red); d = D[L - 1]; sub(h, red, out=d); ly = d[rows, y]
            np.exp(d, out=d); d.sum(axis=1, keepdims=True, out=red)
            loss = (np.log(red[:, 0]) - ly).sum() * invB
            np.divide(d, red, out=d); d[rows, y] -= 1; mul(d, invB, out=d)
            for i in range(L - 1, -1, -1):
                d = D[i]; q = g[i]
                if i < L - 1:
                    if keep and bn[i]: mul(d, DM[i], out=d)
                    mul(d, M[i], out=d)
                    if bn[i]:
                        mean, var, istd, c = vecs[i]; xh, t = XH[i], T2[i]
                        mul(d, xh, out=t); dot(ones, t, out=q["g"]); dot(ones, d, out=q["t"])
                        mul(q["g"], invB, out=c); mul(xh, c, out=t); sub(d, t, out=d)
                        mul(q["t"], invB, out=c); sub(d, c, out=d)
                        mul(istd, p[i]["g"], out=c); mul(d, c, out=d)
                dot(x.T if i == 0 else HT[i - 1], d, out=q["W"]); dot(ones, d, out=q["b"])
                if i: dot(d, WT[i], out=D[i - 1])
            for pp, gg, vv, tt in chunks:
                mul(vv, mu32, out=vv); add(vv, gg, out=vv); mul(vv, lr32, out=tt); sub(pp, tt, out=pp)
            return loss
        return step, float

    def infer(self, wl, batch):
        import numpy as np
        ps = make_params(wl); L = len(ps)
        H = [np.empty((batch, d["W"].shape[1]), np.float32) for d in ps]; z0 = np.float32(0)
        prog = [(d["W"], d["b"], H[i], i < L - 1) for i, d in enumerate(ps)]
        dot, add, maxi = np.dot, np.add, np.maximum
        def f(x):
            for w, b, z, r in prog:
                dot(x, w, out=z); add(z, b, out=z)
                if r: maxi(z, z0, out=z)
                x = z
            return x.copy()
        return f
