"""The nets that an estimator has trained, and what scikit-learn's users read of them."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.ops.linalg import AffineLayer
from graphc.runtime.columns import Columns
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.sklearn.together import Trained
from graphc.train.history import Histories, History


class FittedNets(BaseEstimator):  # type: ignore[misc]
    """The base of an estimator that holds one net, or those of an ensemble."""

    history_: History
    histories_: Histories

    @property
    def executor_(self) -> Executor:
        """The trained Executor, that of the first net."""
        check_is_fitted(self)
        return self._members()[0]

    @property
    def population_(self) -> Population:
        """The trained Population of an ensemble."""
        check_is_fitted(self)
        if isinstance(self._model, Executor):
            raise AttributeError("population_ is that of an ensemble, and ensemble is 1")
        return self._model

    @property
    def n_iter_(self) -> int:
        """The number of epochs that have been trained."""
        check_is_fitted(self)
        return len(self.history_.epochs)

    @property
    def loss_curve_(self) -> list[float]:
        """The training loss of each epoch."""
        check_is_fitted(self)
        return self.history_.loss

    @property
    def loss_(self) -> float:
        """The training loss of the last epoch."""
        return self.loss_curve_[-1]

    @property
    def coefs_(self) -> list[Array]:
        """The weights (inputs, outputs) of each layer, of features as the net prepares them."""
        return self._layer_parameters(1)

    @property
    def intercepts_(self) -> list[Array]:
        """The biases (outputs,) of each layer."""
        return self._layer_parameters(2)

    def _layer_parameters(self, operand: int) -> list[Array]:
        check_is_fitted(self)
        ex = self.executor_
        layers = (node.inputs for node in ex.plan.declared if isinstance(node.op, AffineLayer))
        return [ex.parameters[names[operand]] for names in layers if len(names) > operand]

    def _adopt(self, trained: Trained, classes: Sequence[str]) -> None:
        """Take what a sweep has trained; it stays in its population until members are asked for."""
        self._lent: tuple[Trained, Sequence[str]] | None = trained, classes
        self.histories_, self.history_ = trained.histories, trained.histories[0]

    @property
    def _model(self) -> Executor | Population:
        """The trained net, or the nets of an ensemble."""
        if self._lent is not None:
            trained, classes = self._lent
            self._make(trained.population.plan, classes, trained.seeds, trained.histories)
            for ex, state in zip(self._members(), trained.states(), strict=True):
                ex.state = state
        return self._made

    def _make(
        self, plan: Plan, classes: Sequence[str], seeds: Sequence[int], histories: Sequence[History]
    ) -> None:
        """Create new members."""
        self._lent = None
        self._made: Executor | Population
        if len(seeds) == 1:
            self._made = Executor(plan, seed=seeds[0])
            self._made.state.columns = self._columns(classes)
        else:
            self._made = Population(plan, seeds=seeds)
            self._made.columns = self._columns(classes)
        self.histories_, self.history_ = Histories(histories), histories[0]

    def _members(self) -> Sequence[Executor]:
        return [self._model] if isinstance(self._model, Executor) else list(self._model)

    def _columns(self, classes: Sequence[str]) -> Columns | None:
        """Return the names of features and classes, or None if no model file can store them."""
        raise NotImplementedError
