"""Candidates: the kinds of estimator that a search chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mulle.core.declare.names import plain_name
from mulle.core.declare.ranges import Choices, Floats, Ints, Range
from mulle.core.errors import DeclarationError

__all__ = [
    "BOTH",
    "CODES",
    "FACTORY",
    "FILE",
    "MATRIX",
    "MEANS",
    "Candidate",
    "Codes",
    "Prepared",
    "catboost",
    "custom",
    "dummy",
    "elastic_net",
    "extra_trees",
    "hist_gradient_boosting",
    "knn",
    "lasso",
    "lightgbm",
    "linear",
    "logistic",
    "naive_bayes",
    "onnx",
    "random_forest",
    "ridge",
    "svm",
    "xgboost",
]

Prepared = Literal["plain", "filled", "scaled"]
"""How the matrix is prepared for an estimator of your own: as it is (gaps are NaN, categories codes), with gaps filled, or
with numbers scaled and a column for each category too."""

Codes = Literal["means", "frequencies", "both"]
"""What stands for a category of more than 200 values: the mean target of each value, its share of the rows, or both."""

FACTORY, MATRIX, FILE, CODES = "@factory", "@matrix", "@file", "@codes"
"""What candidates have among their parameters beside the estimator's, so that settings alone say how they are built again."""

MEANS, BOTH = "means", "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A kind of estimator with fixed parameters; the rest is searched.

    Every word takes ``codes="means"``, ``"frequencies"`` or ``"both"`` beside the estimator's own parameters (see `Codes`).

    Attributes
    ----------
    kind : str
        The word that made it: ``lightgbm``, ``ridge`` ...
    params : dict
        Fixed by the user; never searched.
    space : dict
        What is searched, for a candidate of the user's own; the other kinds bring theirs.
    """

    kind: str
    params: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Range] = field(default_factory=dict)

    @property
    def chosen(self) -> dict[str, Any]:
        """The parameters as somebody chose them, without what the search notes for itself.

        Examples
        --------
        >>> Candidate(kind="knn", params={"n_neighbors": 7, "@rows": 400, "@codes": "both"}).chosen
        {'n_neighbors': 7, 'codes': 'both'}
        """
        codes = {"codes": self.params[CODES]} if CODES in self.params else {}
        return {**{name: value for name, value in self.params.items() if not name.startswith("@")}, **codes}


def lightgbm(**params: Any) -> Candidate:
    """Gradient-boosted trees (LightGBM); parameters by LightGBM's scikit-learn names.

    Examples
    --------
    >>> lightgbm(n_estimators=100).params
    {'n_estimators': 100}
    """
    return _of("lightgbm", params)


def ridge(**params: Any) -> Candidate:
    """Linear regression with an L2 penalty (for classes: its classifier)."""
    return _of("ridge", params)


def linear(**params: Any) -> Candidate:
    """Linear regression by least squares, without a penalty; for regression only."""
    return _of("linear", params)


def lasso(**params: Any) -> Candidate:
    """Linear regression with an L1 penalty, which leaves features out; for regression only.

    The penalty ``alpha`` is in units of the target's spread: the target is scaled first.
    """
    return _of("lasso", params)


def elastic_net(**params: Any) -> Candidate:
    """Linear regression with both penalties (``l1_ratio`` of L1); as `lasso` else."""
    return _of("elastic_net", params)


def logistic(**params: Any) -> Candidate:
    """Logistic regression."""
    return _of("logistic", params)


def random_forest(**params: Any) -> Candidate:
    """Random forest."""
    return _of("random_forest", params)


def extra_trees(**params: Any) -> Candidate:
    """Extremely randomised trees."""
    return _of("extra_trees", params)


def hist_gradient_boosting(**params: Any) -> Candidate:
    """Gradient-boosted trees over binned values (scikit-learn's own)."""
    return _of("hist_gradient_boosting", params)


def knn(**params: Any) -> Candidate:
    """Nearest neighbours; for at most 50,000 rows, above which the trial is refused."""
    return _of("knn", params)


def naive_bayes(**params: Any) -> Candidate:
    """Naive Bayes with normal densities; for classes only."""
    return _of("naive_bayes", params)


def svm(**params: Any) -> Candidate:
    """Support vector machine; for at most 5,000 rows, above which the trial is refused.

    For regression ``epsilon`` is in units of the target's spread: the target is scaled first.
    """
    return _of("svm", params)


def dummy(**params: Any) -> Candidate:
    """The baseline: the median or the most frequent class."""
    return _of("dummy", params)


def xgboost(**params: Any) -> Candidate:
    """Gradient-boosted trees (XGBoost); needs the extra ``mulle[xgboost]``."""
    return _of("xgboost", params)


def catboost(**params: Any) -> Candidate:
    """Gradient-boosted symmetric trees (CatBoost); needs the extra ``mulle[catboost]``."""
    return _of("catboost", params)


def custom(
    factory: Callable[..., object],
    space: Mapping[str, Range] | None = None,
    *,
    name: str = "",
    matrix: Prepared = "scaled",
    codes: Codes = "means",
    **params: Any,
) -> Candidate:
    """Take any estimator that keeps scikit-learn's rules (``fit``, ``predict``, for classes ``predict_proba``).

    It is compiled when there is a converter for it, and served natively otherwise. A classifier without ``predict_proba``
    gets probabilities by sigmoids fitted on three folds. Its ``random_state``, where it has one, is the run's seed.

    Parameters
    ----------
    factory : callable
        A class, or a function that returns an estimator; called with the parameters. It must be found again by its name: a
        class of an installed package, or what stands at the top of ``project.py``.
    space : mapping, optional
        Parameter to what is searched: `ml.floats`, `ml.ints`, `ml.choices`.
    name : str, optional
        Of the candidate, in listings; by default the factory's own.
    matrix : {"scaled", "filled", "plain"}
        What the estimator is given.
    codes : {"means", "frequencies", "both"}
        What stands for a category of many values.
    **params
        Fixed.

    Raises
    ------
    DeclarationError
        When the factory has no name to be found by, or the space is none.

    Examples
    --------
    >>> from mulle.core.declare.ranges import floats
    >>> from fractions import Fraction
    >>> custom(Fraction, {"numerator": floats(1.0, 2.0)}).kind
    'custom:Fraction'
    """
    space = dict(space or {})
    strange = [key for key, over in space.items() if not isinstance(over, (Floats, Ints, Choices))]
    if strange:
        raise DeclarationError(f"the range of {strange[0]!r} is none", next="write ml.floats(low, high), ml.ints or ml.choices")
    if matrix not in get_args(Prepared):
        raise DeclarationError(f"no matrix {matrix!r}", next=f"choose from {', '.join(get_args(Prepared))}")
    said = plain_name(name or getattr(factory, "__name__", "").strip("_"), "candidate")
    own = _of("custom", {"codes": codes}).params
    return Candidate(kind=f"custom:{said}", params={FACTORY: _address(factory), MATRIX: matrix, **own, **params}, space=space)


def onnx(model: str | Path | Callable[..., bytes], *, name: str = "") -> Candidate:
    """Take a model that was trained elsewhere, or is trained by a function of your own, as an ONNX graph.

    The graph has one input of float32, shape (rows, columns), the encoded matrix, and one output of floats: shape
    (rows, 1) or (rows,) for regression, the probabilities (rows, classes) else, classes in alphabetical order. It is
    checked before it is tried.

    Parameters
    ----------
    model : str, Path or callable
        A file; a relative path starts where ``mulle`` is started. Or a function from the training rows (float32, shape
        (n, k)) and the target (float64, or the classes as text) to the bytes of a graph, at the top of ``project.py`` or in an
        installed package.
    name : str, optional
        Of the candidate, in listings.

    Raises
    ------
    DeclarationError
        When a function has no name to be found by.

    Examples
    --------
    >>> onnx("models/churn.onnx").kind
    'onnx:churn'
    """
    if callable(model):
        said = plain_name(name or getattr(model, "__name__", "").strip("_"), "candidate")
        return Candidate(kind=f"onnx:{said}", params={FACTORY: _address(model)})
    said = plain_name(name or Path(model).stem, "candidate")
    return Candidate(kind=f"onnx:{said}", params={FILE: str(model)})


def _of(kind: str, params: dict[str, Any]) -> Candidate:
    codes = params.pop("codes", MEANS)
    if codes not in get_args(Codes):
        raise DeclarationError(f"{kind}: no codes {codes!r}", next=f"choose from {', '.join(get_args(Codes))}")
    return Candidate(kind=kind, params=params if codes == MEANS else {CODES: codes, **params})


def _address(factory: Callable[..., object]) -> str:
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    if not callable(factory) or not module or not name or "<" in name:
        raise DeclarationError(
            f"{factory!r} cannot be found again by a name", next="write a class, or a function at the top of project.py"
        )
    return f"{module}:{name}"
