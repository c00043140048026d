"""Truths beside answers, in the one form that every metric reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mulle.core.errors import UsageError

__all__ = ["Answers", "answered", "class_text", "row_log_loss"]

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

# The clip that scikit-learn uses for float64 probabilities would punish one float32 zero with a loss of 36;
# float32's own epsilon bounds it at 16 on every path, compiled or not.
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Answers:
    """Truths beside answers, ready to be measured.

    Attributes
    ----------
    task : str
    truth, values : numpy.ndarray, shape (n,)
        float64 for regression, class text for classes.
    probabilities : numpy.ndarray of float64, shape (n, classes), or None
    classes : tuple of str
        The columns of `probabilities`; of two, the second is the positive one.
    names : tuple of str
        `classes`, then what else truths and answers say, sorted; empty for regression.
    truth_codes, value_codes : numpy.ndarray of int64, shape (n,)
        Positions in `names`; empty for regression.
    """

    task: str
    truth: Array
    values: Array
    probabilities: Floats | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    truth_codes: Codes
    value_codes: Codes

    @property
    def positive(self) -> Sequence[int]:
        """Positions of the classes that are measured one by one: of two the second alone."""
        counted = self.classes or self.names
        return range(1, 2) if len(counted) == 2 else range(len(counted))

    def needed_probabilities(self) -> Floats:
        """Give the probabilities as float64, shape (n, classes), or refuse."""
        if self.probabilities is None:
            raise UsageError("this metric needs probabilities, and there are none", next="choose accuracy or f1")
        return np.asarray(self.probabilities, dtype=np.float64)

    def confidence(self) -> tuple[Floats, Floats]:
        """Give what was said and whether it came true, float64 (n,): of two classes the second, of more the answered one."""
        probabilities = self.needed_probabilities()
        if len(self.classes) == 2:
            return probabilities[:, 1], (self.truth_codes == 1).astype(np.float64)
        top = probabilities.argmax(axis=1)
        return probabilities[np.arange(len(top)), top], (self.truth_codes == top).astype(np.float64)

    def take(self, rows: npt.NDArray[np.int64]) -> Answers:
        """Give the answers of some rows, in that order."""
        shares = None if self.probabilities is None else self.probabilities[rows]
        coded = self.task != "regression"
        truth, value = (self.truth_codes[rows], self.value_codes[rows]) if coded else (self.truth_codes, self.value_codes)
        return Answers(self.task, self.truth[rows], self.values[rows], shares, self.classes, self.names, truth, value)


def answered(task: str, truth: Array, values: Array, probabilities: Floats | None = None, classes: Sequence[str] = ()) -> Answers:
    """Put truths and answers into the form that metrics read.

    Parameters
    ----------
    task : str
    truth, values : numpy.ndarray, shape (n,)
        Numbers for regression; anything that `class_text` reads for classes.
    probabilities : numpy.ndarray, shape (n, classes), optional
    classes : sequence of str
        The columns of `probabilities`.

    Raises
    ------
    UsageError
        When there are no rows, or not as many truths as answers.

    Examples
    --------
    >>> answered("binary", np.array(["a", "b"]), np.array(["b", "b"])).truth_codes.tolist()
    [0, 1]
    """
    if len(truth) == 0 or len(truth) != len(values):
        raise UsageError(
            f"{len(truth)} truths and {len(values)} answers cannot be measured", next="give as many of each, at least one"
        )
    if task == "regression":
        none = np.zeros(0, dtype=np.int64)
        return Answers(task, np.asarray(truth, dtype=np.float64), np.asarray(values, dtype=np.float64), None, (), (), none, none)
    said, found = class_text(truth), class_text(values)
    names = (*classes, *sorted((set(said.tolist()) | set(found.tolist())) - set(classes)))
    place = {name: number for number, name in enumerate(names)}
    codes = (np.fromiter(map(place.__getitem__, text.tolist()), dtype=np.int64, count=len(text)) for text in (said, found))
    return Answers(task, said, found, probabilities, tuple(classes), names, *codes)


def row_log_loss(a: Answers) -> Floats:
    """Give each row's log loss, float64 (n,); probabilities are clipped and made to add up to 1."""
    probabilities = np.clip(a.needed_probabilities(), _EPSILON, 1.0)
    known = a.truth_codes < len(a.classes)
    chosen = probabilities[np.arange(len(known)), np.where(known, a.truth_codes, 0)] / probabilities.sum(axis=1)
    return np.asarray(-np.log(np.maximum(np.where(known, chosen, 0.0), _EPSILON)), dtype=np.float64)


def class_text(labels: npt.ArrayLike) -> npt.NDArray[np.object_]:
    """Write class labels as text, the same whether they came from a frame, from JSON or from a model.

    Parameters
    ----------
    labels : array_like, shape (n,)
        Booleans become ``true`` and ``false``, whole numbers lose their ``.0``.

    Returns
    -------
    numpy.ndarray of object (str), shape (n,)

    Examples
    --------
    >>> class_text([True, 1.0, 2, "yes"]).tolist()
    ['true', '1', '2', 'yes']
    """
    given: list[object] = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)  # type: ignore[arg-type]
    written = np.empty(len(given), dtype=object)
    written[:] = [_text(v) for v in given]
    return written


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
