"""Answers to the lab about a gradient rule."""

R = "    r = gc.sqrt(gc.sum(x * x, axis=1, keepdims=True) + EPS)\n"
U = R + "    u, t = x / r, g * dout\n"
DX = "(t - u * gc.sum(t * u, axis=1, keepdims=True)) / r"
DG = "gc.sum(dout * u, axis=0)"


def rule(dx: str, dg: str = DG, before: str = U) -> str:
    return f"def gradient(x, g, dout):\n{before}    return {dx}, {dg}\n"


RIGHT = {
    "by the unit rows": rule(DX),
    "by the quotient rule": rule(
        "t / r - x * gc.sum(t * x, axis=1, keepdims=True) / (r * r * r)",
        "gc.sum(dout * x / r, axis=0)",
    ),
    "by derivatives of the composition": """
def gradient(x, g, dout):
    r = gc.sqrt(gc.sum(x**2, axis=1, keepdims=True) + EPS)
    d_quotient = dout * g
    d_r = gc.sum(-d_quotient * x / r**2, axis=1, keepdims=True)
    d_square_sum = d_r / (2 * r)
    dx = d_quotient / r + d_square_sum * 2 * x
    return [dx, gc.sum(dout * (x / r), axis=0)]
""",
    "with matrix products": """
def gradient(x, g, dout):
    inverse = 1 / gc.sqrt(gc.sum(x * x, axis=1, keepdims=True) + EPS)
    u = x * inverse
    projected = gc.sum(g * dout * u, axis=1, keepdims=True) * u
    return (g * dout - projected) * inverse, gc.sum(u * dout, axis=0)
""",
}

WRONG = {
    "r is a constant": (rule("t / r"), "r is treated as a constant"),
    "the sign": (rule(f"-{DX}"), "the sign is wrong"),
    "g is forgotten": (
        rule("(dout - u * gc.sum(dout * u, axis=1, keepdims=True)) / r"),
        "the factor g is missing",
    ),
    "not divided": (
        rule("t - u * gc.sum(t * u, axis=1, keepdims=True)"),
        "the division by r is missing",
    ),
    "a mean": (
        rule("(t - u * gc.mean(t * u, axis=1, keepdims=True)) / r"),
        "a mean of the row for a sum",
    ),
    "the wrong axis": (
        rule("(t - u * gc.sum(t * u, axis=0, keepdims=True)) / r"),
        "sums over the rows, not within each row",
    ),
    "twice": (rule(f"2 * {DX}"), "twice as large"),
    "g in every row": (rule(DX, "dout * u"), "sum over the rows, which all use g"),
    "a mean for g": (rule(DX, "gc.mean(dout * u, axis=0)"), "a mean over the rows for a sum"),
    "no gradient for g": (rule(DX, "None"), "returns None for g"),
    "one value": ("def gradient(x, g, dout):\n    return dout\n", "not two Values"),
    "an array": (rule(DX, "np.zeros(3)"), "returns ndarray for g, not a Value"),
}
