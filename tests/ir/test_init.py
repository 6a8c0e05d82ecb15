"""Initial values: distributions, shapes, and what `resolve` accepts."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from graphc.ir.init import (
    Constant,
    FromArray,
    Glorot,
    He,
    Initializer,
    Normal,
    Ones,
    Orthogonal,
    Uniform,
    Zeros,
    fans,
    generator,
    resolve,
)
from tests.together import together

ALL = [
    He(),
    Glorot(),
    Normal(0.1),
    Uniform(-1, 2),
    Orthogonal(),
    Zeros(),
    Ones(),
    Constant(3),
    FromArray.of(np.arange(12.0).reshape(4, 3)),
]


@together("init", ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sample_has_shape_and_dtype_and_repeats(init: Initializer, dtype: str) -> None:
    first = init.sample(generator(1, "w"), (4, 3), dtype)
    assert first.shape == (4, 3)
    assert first.dtype == dtype
    assert first.flags.writeable and first.flags.c_contiguous
    np.testing.assert_array_equal(first, init.sample(generator(1, "w"), (4, 3), dtype))


@pytest.mark.parametrize("init", ALL, ids=repr)
def test_float32_is_float64_rounded(init: Initializer) -> None:
    wide = init.sample(generator(1, "w"), (4, 3), "float64")
    narrow = init.sample(generator(1, "w"), (4, 3), "float32")
    np.testing.assert_array_equal(narrow, wide.astype("float32"))


@pytest.mark.parametrize("init", ALL, ids=repr)
def test_initializers_are_frozen_values(init: Initializer) -> None:
    assert hash(init) == hash(pickle.loads(pickle.dumps(init)))
    assert init == dataclasses.replace(init)  # type: ignore[type-var]


def test_fans_of_vectors_matrices_and_filters() -> None:
    assert fans(()) == (1, 1)
    assert fans((7,)) == (7, 7)
    assert fans((20, 30)) == (20, 30)
    assert fans((3, 3, 16, 32)) == (144, 32)
    assert fans((0, 5)) == (1, 5)


def test_he_scales_with_what_comes_in() -> None:
    values = He().sample(generator(0, "w"), (3, 3, 50, 200), "float64")
    assert values.std() == pytest.approx(np.sqrt(2 / 450), rel=0.02)
    assert abs(values.mean()) < 0.002


def test_glorot_stays_within_its_bound() -> None:
    values = Glorot().sample(generator(0, "w"), (300, 500), "float64")
    bound = np.sqrt(6 / 800)
    assert np.abs(values).max() <= bound
    assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_normal_and_uniform_have_their_moments() -> None:
    normal = Normal(2.0, mean=5.0).sample(generator(0, "n"), (100_000,), "float64")
    assert normal.mean() == pytest.approx(5, abs=0.05)
    assert normal.std() == pytest.approx(2, rel=0.02)
    uniform = Uniform(1.0, 3.0).sample(generator(0, "u"), (100_000,), "float64")
    assert uniform.min() >= 1 and uniform.max() < 3
    assert uniform.mean() == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (2, 3, 4)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape: tuple[int, ...]) -> None:
    values = Orthogonal(gain=2.0).sample(generator(0, "w"), shape, "float64")
    matrix = values.reshape(-1, shape[-1]) / 2
    small = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-12)


def test_orthogonal_is_not_biased_in_sign() -> None:
    signs = [Orthogonal().sample(generator(s, "w"), (3, 3), "float64") > 0 for s in range(300)]
    assert np.abs(np.mean(signs, axis=0) - 0.5).max() < 0.15


def test_orthogonal_needs_a_matrix() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        Orthogonal().sample(generator(0, "b"), (3,), "float32")


def test_constants() -> None:
    rng = generator(0, "c")
    assert (Zeros().sample(rng, (2,), "float32") == 0).all()
    assert (Ones().sample(rng, (2,), "float32") == 1).all()
    assert (Constant(-2.5).sample(rng, (2,), "float32") == -2.5).all()
    assert Constant(1.0).sample(rng, (), "float64").shape == ()


@pytest.mark.parametrize("init", [He(), Glorot(), Normal(), Uniform()], ids=repr)
def test_scalars_can_be_drawn(init: Initializer) -> None:
    assert init.sample(generator(0, "s"), (), "float32").shape == ()


def test_array_is_copied_and_its_shape_checked() -> None:
    given = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    init = FromArray.of(given)
    expected = given.copy()
    given[:] = -1
    sample = init.sample(generator(0, "a"), (2, 3), "float32")
    np.testing.assert_array_equal(sample, expected)
    sample[:] = 9
    np.testing.assert_array_equal(init.sample(generator(0, "a"), (2, 3), "float32"), expected)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        init.sample(generator(0, "a"), (3, 2), "float32")
    assert repr(init) == "FromArray(float64, shape=(2, 3))"


@pytest.mark.parametrize("values", [["a"], [1j], [None]])
def test_array_of_anything_but_numbers_is_refused(values: list[object]) -> None:
    with pytest.raises(ValueError, match="initial value"):
        FromArray.of(np.array(values))


def test_resolve_takes_names_numbers_arrays_and_initializers() -> None:
    assert resolve("he") == He()
    assert resolve("glorot") == Glorot()
    assert resolve("normal") == Normal()
    assert resolve("uniform") == Uniform()
    assert resolve("orthogonal") == Orthogonal()
    assert resolve("zeros") == Zeros()
    assert resolve("ones") == Ones()
    assert resolve(0.5) == Constant(0.5)
    assert resolve(np.float32(0.5)) == Constant(0.5)
    assert resolve(np.ones(2)) == FromArray.of(np.ones(2))
    assert resolve(Normal(3.0)) == Normal(3.0)


@pytest.mark.parametrize(
    ("init", "message"),
    [("xavier", "'xavier' is not one of he, glorot"), (None, "not NoneType"), (True, "not bool")],
)
def test_resolve_refuses_in_plain_words(init: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(init)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Normal, (-1.0,), "std of at least 0"),
        (Normal, (float("nan"),), "finite"),
        (Uniform, (2.0, 1.0), "low <= high"),
        (Uniform, (0.0, float("inf")), "finite"),
        (Orthogonal, (float("inf"),), "finite"),
    ],
)
def test_impossible_settings_are_refused(
    kind: type[Initializer], arguments: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(*arguments)


def test_generator_depends_on_seed_and_name_only() -> None:
    draws = {
        (seed, name): generator(seed, name).standard_normal(4).tobytes()
        for seed in (0, 1, 2**63)
        for name in ("a.weight", "b.weight")
    }
    assert len(set(draws.values())) == len(draws)
    assert generator(1, "b.weight").standard_normal(4).tobytes() == draws[1, "b.weight"]
