"""The estimators beside plain graphc and NumPy, and what they tell of mistakes."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

import graphc as gc
from graphc.cli import main
from graphc.data import stratified_split
from graphc.sklearn import GraphClassifier, GraphRegressor
from graphc.sklearn.models import class_factors
from graphc.sklearn.rows import rows_of_a_step
from tests.error_text import error_text

pytestmark = pytest.mark.filterwarnings("ignore:training did not converge")


@pytest.fixture(scope="module")
def digits() -> list[Any]:
    """Rows and labels of a training and a test set."""
    x, y = load_digits(return_X_y=True)
    return list(train_test_split(x, y, test_size=0.3, stratify=y, random_state=0))


def test_digits_are_learnt_under_their_own_labels(digits: list[Any]) -> None:
    x, x_test, y, y_test = digits
    names = np.array([f"digit {i}" for i in range(10)])
    found = GraphClassifier(epochs=30, random_state=0).fit(x, names[y])
    assert found.score(x_test, names[y_test]) > 0.95
    assert found.classes_.tolist() == names.tolist() and found.n_iter_ <= 30
    chances = found.predict_proba(x_test)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-6)
    assert (found.predict(x_test) == names[chances.argmax(axis=1)]).all()


def test_the_scores_are_those_of_the_parameters(digits: list[Any]) -> None:
    """A perceptron written out in NumPy."""
    x, x_test, y, _ = digits
    found = GraphClassifier((20,), dtype="float64", epochs=3, random_state=1).fit(x, y)
    p = found.executor_.parameters
    h = (x_test - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    h = np.maximum(h @ p["affine_1.weight"] + p["affine_1.bias"], 0)
    scores = h @ p["affine_2.weight"] + p["affine_2.bias"]
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    wanted = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.predict_proba(x_test), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", None])
def test_the_net_has_its_dtype_and_predictions_that_of_x(dtype: Any) -> None:
    x, y = make_regression(30, 3, random_state=0)
    options: dict[str, Any] = {"hidden": (3,), "epochs": 1, "dtype": dtype, "backend": "numpy"}
    for given in (np.float32, np.float64):
        chances = GraphClassifier(**options).fit(x.astype(given), y > 0)
        number = GraphRegressor(**options).fit(x.astype(given), y)
        for model in (chances, number):
            assert {weight.dtype.name for weight in model.coefs_} == {dtype or given.__name__}
        found = chances.predict_proba(x.astype(given))
        assert found.dtype == number.predict(x.astype(given)).dtype == given
        rounding = 4 * np.finfo(given).eps
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=rounding)


@pytest.mark.parametrize("prepare", [False, True])
def test_no_digit_is_lost_to_an_offset(prepare: bool) -> None:
    """Seconds since 1970, of which float32 would keep one in 128."""
    rng = np.random.default_rng(0)
    seconds, start = rng.integers(0, 300, (90, 2)).astype(float), 1.6e9
    y = seconds[:, 0] - seconds[:, 1]
    options: dict[str, Any] = {"hidden": (4,), "epochs": 5, "random_state": 0, "prepare": prepare}
    options["dtype"] = "float32"
    for move in (0, start):
        near = GraphRegressor(**options).fit(seconds, y + move)
        far = GraphRegressor(**options).fit(seconds + start, y + move)
        np.testing.assert_allclose(
            far.predict(seconds + start) - move, near.predict(seconds) - move, atol=1e-3
        )


def test_numbers_that_a_dtype_does_not_have_are_refused() -> None:
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    large = np.where([False, True], 1e39, x)
    message = (
        "X holds 1e+39, which is too large for float32: scale its column, or give "
        "GraphClassifier(dtype='float64')"
    )
    model = GraphClassifier((2,), epochs=1, dtype="float32", backend="numpy")
    for found in (large, csr_array(large)):
        with pytest.raises(ValueError) as caught:
            model.fit(found, y)
        assert str(caught.value) == message
    model.fit(x, y)
    with pytest.raises(ValueError) as caught:
        model.predict(large)
    assert str(caught.value) == message
    model.set_params(dtype="float64").fit(large, y).predict(large)


@pytest.mark.slow
def test_several_targets_are_predicted_in_their_own_units() -> None:
    x, y = make_regression(200, 8, n_informative=4, n_targets=2, random_state=0)
    y = y * [1.0, 1000.0] + [50.0, 1e6]
    found = GraphRegressor(epochs=300, lr=0.01, random_state=0).fit(x, y)
    assert found.score(x, y) > 0.98 and found.predict(x).shape == (200, 2)
    one = GraphRegressor(epochs=5, random_state=0).fit(x, y[:, 1])
    assert one.predict(x).shape == (200,)


def test_the_same_random_state_gives_the_same_bits(digits: list[Any]) -> None:
    x, x_test, y, _ = digits
    made = [GraphClassifier(epochs=2, dropout=0.2, random_state=7).fit(x, y) for _ in range(2)]
    first, second = (found.predict_proba(x_test).tobytes() for found in made)
    assert first == second
    other = GraphClassifier(epochs=2, dropout=0.2, random_state=8).fit(x, y)
    assert other.predict_proba(x_test).tobytes() != first


def test_epochs_one_by_one_are_those_of_fit(digits: list[Any]) -> None:
    x, x_test, y, _ = digits
    whole = GraphClassifier(epochs=3, random_state=3).fit(x, y)
    parts = GraphClassifier(random_state=3)
    for _ in range(3):
        parts.partial_fit(x, y, classes=np.arange(10))
    assert parts.n_iter_ == 3
    assert whole.predict_proba(x_test).tobytes() == parts.predict_proba(x_test).tobytes()


@pytest.mark.slow
def test_copies_and_pickles_predict_the_same(digits: list[Any]) -> None:
    x, x_test, y, _ = digits
    found = GraphClassifier(epochs=2, batchnorm=True, random_state=0).fit(x, y)
    again = pickle.loads(pickle.dumps(found))
    assert again.predict_proba(x_test).tobytes() == found.predict_proba(x_test).tobytes()
    assert clone(found).get_params() == found.get_params()
    assert not hasattr(clone(found), "executor_")


@pytest.mark.slow
def test_pipelines_and_searches(digits: list[Any]) -> None:
    x, _, y, _ = digits
    model = make_pipeline(StandardScaler(), GraphClassifier(epochs=40, random_state=0))
    name = "graphclassifier__hidden"
    search = GridSearchCV(model, {name: [(2,), (50,)]}, cv=2, n_jobs=2).fit(x, y)
    assert search.best_params_ == {name: (50,)} and search.best_score_ > 0.85


def _net(features: int, units: int) -> gc.Net:
    net = gc.Net("own")
    x, y = net.input("x", (gc.N, features)), net.input("y", gc.N, dtype="int64")
    scores = net.output("scores", gc.affine(gc.tanh(gc.affine(x, 30)), units))
    net.loss("loss", gc.svm_loss(scores, y))
    return net


def test_a_net_of_ones_own(digits: list[Any]) -> None:
    x, x_test, y, y_test = digits
    found = GraphClassifier(net=_net, epochs=20, lr=0.01, random_state=0).fit(x / 16, y)
    assert found.score(x_test / 16, y_test) > 0.9
    with pytest.raises(gc.GraphError, match="net 'own' takes no sample_weight"):
        GraphClassifier(net=_net).fit(x, y, sample_weight=np.arange(len(y)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"hidden": 100},
            "hidden is 100, it must list the widths of the hidden layers, as (100, 50)",
        ),
        ({"epochs": 0}, "epochs is 0, it must be a whole number from 1 up"),
        ({"patience": 1.5}, "patience is 1.5, it must be a whole number from 1 up"),
        (
            {"validation_fraction": 1.0},
            "validation_fraction is 1.0, it must be a number between 0 and 1",
        ),
        ({"tol": -1}, "tol is -1, it must be a number of 0 or more"),
        ({"dtype": "int8"}, "dtype is 'int8', it must be 'float32', 'float64' or None"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError) as caught:
        GraphClassifier(**options).fit(x, y)
    assert str(caught.value) == message


def test_labels_that_do_not_fit() -> None:
    x = np.zeros((3, 2))
    with pytest.raises(ValueError) as caught:
        GraphClassifier().fit(x, [1, 1, 1])
    assert str(caught.value) == "a classifier needs 2 classes, y has only 1 class: 1"
    with pytest.raises(ValueError) as caught:
        GraphClassifier().partial_fit(x, [0, 1, 2], classes=[0, 1])
    assert str(caught.value) == "the label 2 is not among the classes [0, 1]"


def test_targets_of_another_shape_change_nothing() -> None:
    x, y = make_regression(40, 3, random_state=0)
    found = GraphRegressor(random_state=0).partial_fit(x, y)
    before = found.predict(x)
    with pytest.raises(ValueError) as caught:
        found.partial_fit(x, y[:, None])
    assert str(caught.value) == "y has shape (40, 1), in the first call it was (N,)"
    np.testing.assert_array_equal(found.predict(x), before)


def test_weights_that_are_none(digits: list[Any]) -> None:
    x, _, y, _ = digits
    with pytest.raises(ValueError, match=r"^sample_weight holds -1\.0, weights are 0 or more$"):
        GraphClassifier().fit(x, y, sample_weight=np.full(len(y), -1.0))
    # Newer versions of scikit-learn say so themselves.
    with pytest.raises(ValueError, match=r"at least one non-zero|nothing to train on"):
        GraphClassifier().fit(x, y, sample_weight=np.zeros(len(y)))


def test_a_linear_model_reaches_the_optimum() -> None:
    """Without hidden layers the loss is convex: ordinary least squares."""
    x, y = make_regression(150, 4, noise=10.0, random_state=0)
    found = GraphRegressor(
        hidden=(), batch=150, epochs=500, patience=500, lr=0.02, weight_decay=0, random_state=0
    ).fit(x, y)
    wanted = LinearRegression().fit(x, y).predict(x)
    np.testing.assert_allclose(found.predict(x), wanted, atol=1e-3 * y.std())


def test_a_loss_that_is_no_longer_finite_is_reported() -> None:
    x, y = make_regression(50, 4, random_state=0)
    with pytest.raises(gc.GraphError) as caught:
        GraphRegressor(optimizer=gc.SGD(1e6), random_state=0).fit(x, y)
    assert isinstance(caught.value, gc.NotFiniteError)
    assert "hint: numbers have grown too large: a smaller lr" in error_text(caught.value)


@pytest.mark.parametrize(
    ("rows", "steps"), [(9, 1), (40, 2), (112, 7), (150, 8), (1500, 8), (1601, 9), (100_000, 500)]
)
def test_an_epoch_has_eight_steps_or_steps_of_at_most_200_rows(rows: int, steps: int) -> None:
    size = rows_of_a_step(rows)
    assert -(-rows // size) == steps and size <= 200
    assert size * steps - rows < steps  # the last is about as long


def test_a_step_takes_as_many_rows_as_it_is_told() -> None:
    x, y = make_regression(60, 3, random_state=0)
    for batch, steps in (("auto", 3), (60, 1), (7, 9)):
        model = GraphRegressor((2,), batch=batch, epochs=2, backend="numpy").fit(x, y)
        assert model.executor_.state["updates"] == 2 * steps


def test_training_stops_when_the_loss_stands_still() -> None:
    x, y = make_regression(50, 4, random_state=0)
    found = GraphRegressor(tol=1e9, patience=4, random_state=0).fit(x, y)
    assert found.n_iter_ == 5 == len(found.history_.loss)


# ---------------------------------------------------------------------- early stopping


def _noisy(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Features that say little of the label, so that many epochs learn it by heart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 20))
    return x, (x[:, 0] + 3 * rng.normal(size=rows) > 0).astype(int)


def test_early_stopping_returns_to_the_best_epoch_of_rows_that_were_not_trained_on() -> None:
    x, y = _noisy()
    options = {"lr": 0.01, "random_state": 0, "early_stopping": True, "validation_fraction": 0.25}
    found = GraphClassifier(patience=5, **options).fit(x, y)
    curve = found.history_.val_loss
    best = int(np.argmin(curve)) + 1
    assert found.n_iter_ < 200 and len(curve) == len(found.loss_curve_) == found.n_iter_
    with pytest.warns(ConvergenceWarning):
        there = GraphClassifier(epochs=best, **options).fit(x, y)
    np.testing.assert_array_equal(found.predict_proba(x), there.predict_proba(x))
    _, held = stratified_split(y, 0.25, found.executor_.state.seed)
    chances = found.predict_proba(x)[held, y[held]]
    np.testing.assert_allclose(-np.log(chances).mean(), min(curve))


def test_early_stopping_of_a_regressor() -> None:
    x, y = make_regression(300, 5, n_targets=2, noise=200.0, random_state=0)
    found = GraphRegressor(early_stopping=True, lr=0.01, random_state=0).fit(x, y)
    assert found.n_iter_ < 200 and found.score(x, y) > 0


def test_too_few_rows_to_hold_some_out() -> None:
    with pytest.raises(ValueError) as caught:
        GraphRegressor(early_stopping=True).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    assert str(caught.value) == "a validation_fraction of 0.1 of 3 rows leaves none on one side"


def test_training_that_did_not_converge_warns_at_the_users_line() -> None:
    x, y = _noisy()
    with pytest.warns(ConvergenceWarning) as caught:
        GraphClassifier(epochs=3, random_state=0).fit(x, y)
    (one,) = caught
    assert str(one.message) == (
        "training did not converge: loss still improved when all 3 epochs were done; give more "
        "epochs, another lr, or early_stopping=True"
    )
    assert one.filename == __file__


def test_verbose_prints_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = _noisy()
    model = GraphClassifier(epochs=2, random_state=0, verbose=True, early_stopping=True)
    model.fit(x, y)
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in shown] == ["epoch 1/2", "epoch 2/2"]
    assert shown[1].endswith(
        f"loss {model.loss_curve_[1]:.4g}, val_loss {model.history_.val_loss[1]:.4g}"
    )


def test_threads_may_predict_at_the_same_time(digits: list[Any]) -> None:
    x, x_test, y, _ = digits
    found = GraphClassifier(epochs=1, random_state=0).fit(x, y)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(found.predict_proba, [x_test] * 16))
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_nets_that_do_not_fit_are_reported() -> None:
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])

    def without_y(features: int, units: int) -> gc.Net:
        net = gc.Net("own")
        net.output("scores", net.input("x", (gc.N, features)))
        return net

    def too_few(features: int, units: int) -> gc.Net:
        net = _net(features, units - 1)
        return net

    for declare, message in (
        (lambda features, units: None, "the function given as net returned NoneType, not a Net"),
        (without_y, "net 'own' has no input 'y'"),
        (too_few, "output 'scores' is float32[N, 1], for this data it must be float32[N, 2]"),
    ):
        with pytest.raises(gc.GraphError) as caught:
            GraphClassifier(net=declare).fit(x, y)
        assert caught.value.sentence == message
    with pytest.raises(gc.GraphError) as caught:
        GraphRegressor(net=_net).fit(x, y)
    assert caught.value.sentence == "net 'own' has no output 'prediction'"


# ---------------------------------------------------------------------- weights of classes


def _uneven(rows: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels of uneven frequency, and weights of the rows."""
    rng = np.random.default_rng(0)
    y = np.array(["few", "many", "some"])[rng.choice(3, rows, p=[0.1, 0.6, 0.3])]
    return rng.normal(size=(rows, 4)), y, rng.uniform(0.5, 2.0, rows)


def _chances(model: GraphClassifier, x: np.ndarray, *given: Any, **weights: Any) -> bytes:
    return model.fit(x, *given, **weights).predict_proba(x).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_class_weights_are_factors_of_sample_weights(dtype: Any) -> None:
    x, y, weight = _uneven()
    x = x.astype(dtype)
    table = {"few": 5.0, "some": 0.5}
    factors = np.select([y == "few", y == "some"], [5.0, 0.5], 1.0)
    options = {"epochs": 3, "batch": 50, "random_state": 0}
    model, plain = GraphClassifier(class_weight=table, **options), GraphClassifier(**options)
    assert _chances(model, x, y) == _chances(plain, x, y, sample_weight=factors)
    wanted = _chances(plain, x, y, sample_weight=weight * factors)
    assert _chances(model, x, y, sample_weight=weight) == wanted
    assert _chances(plain, x, y) != wanted
    names = np.unique(y)
    parts = [GraphClassifier(random_state=0, class_weight=given) for given in (table, None)]
    for part, given in zip(parts, (weight, weight * factors), strict=True):
        part.partial_fit(x, y, classes=names, sample_weight=given)
    first, second = (part.predict_proba(x).tobytes() for part in parts)
    assert first == second


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    x, y, weight = _uneven()
    names = np.unique(y)
    options = {"epochs": 3, "random_state": 0}
    table = compute_class_weight("balanced", classes=names, y=y)
    given = GraphClassifier(class_weight=dict(zip(names, table, strict=True)), **options)
    balanced = GraphClassifier(class_weight="balanced", **options)
    assert _chances(balanced, x, y) == _chances(given, x, y)
    # With weights of rows, too, the rows of each class weigh as much together.
    codes = np.searchsorted(names, y)
    factors = class_factors("balanced", names, codes, weight)
    sums = np.bincount(codes, weight * factors[codes])
    np.testing.assert_allclose(sums, weight.sum() / 3)


def test_a_class_of_weight_0_is_known_and_never_trained_on() -> None:
    x, y, _ = _uneven()
    found = GraphClassifier(class_weight={"some": 0}, epochs=30, lr=0.01, random_state=0).fit(x, y)
    assert found.classes_.tolist() == ["few", "many", "some"]
    rest = y != "some"
    options = {"epochs": 30, "lr": 0.01, "random_state": 0}
    without = GraphClassifier(**options).partial_fit(x[rest], y[rest], classes=np.unique(y))
    once = GraphClassifier(class_weight={"some": 0}, **options)
    once.partial_fit(x, y, classes=np.unique(y))
    np.testing.assert_array_equal(once.predict_proba(x), without.predict_proba(x))


def test_class_weights_are_cloned_pickled_and_searched_for() -> None:
    x, y, _ = _uneven(400)
    y = np.where(x[:, 0] + 0.3 * x[:, 1] > 1.2, "few", "many")
    model = GraphClassifier(epochs=10, lr=0.01, random_state=0, class_weight={"few": 4.0})
    assert clone(model).get_params()["class_weight"] == {"few": 4.0}
    fitted = pickle.loads(pickle.dumps(model.fit(x, y)))
    assert fitted.class_weight == {"few": 4.0}
    np.testing.assert_array_equal(fitted.predict_proba(x), model.predict_proba(x))
    choices = [{"few": 0.0}, None, "balanced"]
    search = GridSearchCV(model, {"class_weight": choices}, cv=2, scoring="balanced_accuracy")
    search.fit(x, y)
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] == 0.5 < scores[2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("even", "class_weight is 'even', it must be None, 'balanced', or a mapping from class "),
        ({"none": 1.0}, "class_weight names 'none', which is not among the classes ['few', "),
        ({"few": -1.0}, "class_weight is {'few': -1.0}, weights are numbers of 0 or more"),
        ({"few": float("nan")}, "class_weight is {'few': nan}, weights are numbers of 0 or more"),
        (dict.fromkeys(("few", "many", "some"), 0), "class_weight is 0 for every row, so there "),
    ],
)
def test_class_weights_that_make_no_sense(given: Any, message: str) -> None:
    x, y, _ = _uneven()
    with pytest.raises(ValueError) as caught:
        GraphClassifier(class_weight=given).fit(x, y)
    assert str(caught.value).startswith(message)


def test_balanced_weights_need_all_rows() -> None:
    x, y, _ = _uneven()
    with pytest.raises(ValueError) as caught:
        GraphClassifier(class_weight="balanced").partial_fit(x, y, classes=np.unique(y))
    assert str(caught.value) == (
        "partial_fit takes class_weight as a mapping, not as 'balanced': it does not know the rows "
        "to come"
    )


def test_a_saved_classifier_predicts_from_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = np.arange(30) % 3
    x = np.stack([np.linspace(0, 1, 30), 5.0 * kinds], 1)
    words = np.array(["setosa", "versicolor", "virginica"])[kinds]
    names = "sklearn.utils.validation._get_feature_names"
    monkeypatch.setattr(names, lambda X: np.array(["width", "length"], object))
    model = GraphClassifier((8,), epochs=60, lr=0.05, random_state=0, backend="numpy").fit(x, words)
    assert (model.predict(x) == words).all()
    gc.save(tmp_path / "e.gc", model.executor_)
    lines = ["length,id,width", *(f"{length},7,{width}" for width, length in x)]
    (tmp_path / "new.csv").write_text("\n".join(lines))
    assert main(["predict", str(tmp_path / "e.gc"), "--data", str(tmp_path / "new.csv")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in shown] == ["class", *words]


def test_a_table_for_a_model_without_names_of_columns_is_read_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = np.arange(30) % 2
    x = np.stack([np.linspace(0, 1, 30), 5.0 * kinds], 1)
    model = GraphClassifier((8,), epochs=40, lr=0.05, random_state=0, backend="numpy")
    model.fit(x, 3 + 4 * kinds)
    gc.save(tmp_path / "e.gc", model.executor_)
    text = "\n".join(["a,b", *(f"{a},{b}" for a, b in x)])
    (tmp_path / "new.csv").write_text(text)
    assert main(["predict", str(tmp_path / "e.gc"), "--data", str(tmp_path / "new.csv")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in shown[1:]] == ["3", "7"] * 15


@pytest.mark.parametrize(
    ("options", "name", "other"),
    [
        ({"optimizer": gc.SGD(0.1), "lr": 0.5}, "lr", "optimizer"),
        ({"optimizer": gc.SGD(0.1), "weight_decay": 0.0}, "weight_decay", "optimizer"),
        ({"net": _net, "hidden": (5,)}, "hidden", "net"),
        ({"net": _net, "hidden": np.array([5, 5])}, "hidden", "net"),
        ({"net": _net, "batchnorm": True}, "batchnorm", "net"),
        ({"net": _net, "dropout": 0.5}, "dropout", "net"),
        ({"net": _net, "standardize": False}, "standardize", "net"),
        ({"net": _net, "dtype": "float64"}, "dtype", "net"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], name: str, other: str) -> None:
    for kind in (GraphClassifier, GraphRegressor):
        model = clone(kind(**options))  # which only stores them
        with pytest.raises(ValueError, match=f"^{name} is .*, but {other} is given"):
            model.fit(np.ones((4, 2)), [0, 1, 0, 1])


def test_options_may_be_numbers_of_numpy() -> None:
    x, y = np.linspace(-1, 1, 24).reshape(12, 2), np.arange(12) % 2
    options = {"batch": 4, "epochs": 3, "patience": 2, "threads": 1, "random_state": 5}
    found = []
    for kind in (int, np.int64, np.uint8):
        given = {name: kind(number) for name, number in options.items()}
        model = GraphClassifier((kind(3),), lr=np.float64(0.5), **given)
        found.append(model.fit(x, y).predict_proba(x))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
