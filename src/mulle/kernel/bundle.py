"""Reading and running a bundle: the one scorer that serving, batch, parity proofs and comparisons share."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import polars as pl

from mulle.core.declare.features import Features
from mulle.core.errors import BundleError, TransformError
from mulle.core.hashing import hash_folder
from mulle.core.records.base import Json, from_json
from mulle.core.records.bundle import FORMAT, Contract, InputField
from mulle.kernel.dtypes import dtype_of
from mulle.kernel.encode import Columns, are_plain, encode_columns
from mulle.kernel.plain import Plain, read_plain
from mulle.kernel.project import hash_code, load_features
from mulle.kernel.sample import prove_sample, read_sample
from mulle.kernel.transform import encode, run_transform, unseen
from mulle.kernel.worker import Worker

__all__ = ["INPUT", "OUTPUT", "Predictor", "Scores", "read_contract", "verify"]

INPUT = "features"
"""Name of the compiled model's one input, float32 (n, k)."""

OUTPUT = "answer"
"""Name of the output that is read: (n, 1) for regression, probabilities (n, classes) else."""

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

_SAMPLED = 2
"""The first layout with a sample; an older bundle was proved when it was registered, and that must do."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Answers to n rows.

    Attributes
    ----------
    values : list
        float for regression, the class's text else.
    probabilities : numpy.ndarray of float64, shape (n, classes), or None
        In the order of the contract's classes.
    unseen : dict
        Row number to the features whose category was never seen in training.
    """

    values: list[float] | list[str]
    probabilities: Floats | None
    unseen: dict[int, tuple[str, ...]]


class _Engine(Protocol):
    def run(self, matrix: Matrix) -> Floats: ...

    def close(self) -> None: ...


class Predictor:
    """A loaded bundle: transform and model behind one contract.

    Attributes
    ----------
    contract : Contract
    features : Features
        The snapshot's own feature function, with its joins.
    plain : Plain or None
        The same function without Polars, for a few rows; None where it has to be Polars.
    """

    def __init__(
        self, contract: Contract, features: Features, reference: Callable[[], Json], engine: _Engine, plain: Plain | None = None
    ) -> None:
        self.contract = contract
        self.features = features
        self.plain = plain if plain is not None and are_plain(plain.schema, contract.features) else None
        self._reference = reference
        self._engine = engine

    @property
    def reference(self) -> Json:
        """Histograms of the training data, by feature; read when asked for, for serving never does."""
        return self._reference()

    @classmethod
    def open(cls, folder: Path, *, expected: str | None = None, threads: int = 1, worker: Worker | None = None) -> Predictor:
        """Load a bundle.

        Parameters
        ----------
        folder : Path
        expected : str, optional
            The content hash that the metadata database knows it by.
        threads : int
            Of the compiled model, for one call.
        worker : Worker, optional
            Runs a model that did not compile; one of its own by default, started at the first answer.

        Raises
        ------
        BundleError
            When content and hash differ, the layout is newer than this reader, a compiled model lacks its parity
            proof, a part is missing or does not load, or the transform is not row-wise on the bundle's own sample or
            gives other features than when it was registered (facts name the ``column``).
        """
        if expected is not None:
            verify(folder, expected)
        contract = read_contract(folder)
        if contract.compiled == "onnx" and contract.parity is None:
            raise BundleError(
                f"{folder.name} has no parity proof: nobody showed that its compiled model answers like the fitted one",
                next="register the model again",
                bundle=folder.name,
            )
        engine = _engine(folder, contract, threads, worker)
        features, plain = _features(folder, contract)
        return cls(contract, features, partial(_read_json, folder / "reference.json"), engine, plain)

    @classmethod
    def assemble(
        cls, contract: Contract, features: Features, model: bytes | Callable[[Matrix], Floats], *, threads: int = 1
    ) -> Predictor:
        """Put a predictor together from parts that are not a bundle yet, so that its parity can be proved.

        Parameters
        ----------
        contract : Contract
            Its parity may still be missing.
        features : Features
        model : bytes or callable
            The compiled model; for one that does not compile, what answers an encoded matrix in this process.

        Raises
        ------
        BundleError
            When the compiled model does not load.
        """
        return cls(contract, features, dict, _Compiled(model, threads) if isinstance(model, bytes) else _Direct(model))

    def transform(self, joined: pl.DataFrame) -> pl.DataFrame:
        """Run the bundle's own feature function on rows that carry the joined columns."""
        return run_transform(self.features, joined)

    def score(self, features: pl.DataFrame) -> Scores:
        """Answer rows of the transform's output.

        Parameters
        ----------
        features : polars.DataFrame
            With the contract's features, in any order.

        Returns
        -------
        Scores
        """
        specs = self.contract.features
        matrix = encode(features, specs)
        return self._scores(self.run(matrix), unseen(features, specs, matrix))

    def score_columns(self, features: Columns, count: int) -> Scores:
        """Answer `count` rows of plain columns; see `kernel.encode.plain_columns`."""
        matrix, unknown = encode_columns(features, self.contract.features, count)
        return self._scores(self.run(matrix), unknown)

    def _scores(self, answers: Floats, unknown: dict[int, tuple[str, ...]]) -> Scores:
        if self.contract.task == "regression":
            return Scores(answers[:, 0].tolist(), None, unknown)
        classes = self.contract.classes
        return Scores([classes[i] for i in answers.argmax(axis=1).tolist()], answers, unknown)

    def run(self, matrix: Matrix) -> Floats:
        """Run the model alone on an encoded matrix, float32 (n, k); returns float64 (n, 1) or (n, classes)."""
        width = 1 if self.contract.task == "regression" else len(self.contract.classes)
        if len(matrix) == 0:
            return np.zeros((0, width))
        return self._engine.run(matrix).reshape(len(matrix), width)

    def close(self) -> None:
        """End the child process of a native model if it is its own; harmless otherwise."""
        self._engine.close()


def read_contract(folder: Path) -> Contract:
    """Read a bundle's contract without loading its model.

    Raises
    ------
    BundleError
        When it is missing, unreadable or of a later layout.
    """
    value = _read_json(folder / "bundle.json")
    found = value.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise BundleError(
            f"{folder.name} has layout {found}, this Mulle reads up to {FORMAT}",
            next="upgrade mulle, or register the model again",
        )
    try:
        return from_json(Contract, value)
    except (TypeError, KeyError, ValueError) as error:
        raise BundleError(f"the contract of {folder.name} cannot be read: {error}", next="register the model again") from error


class _Compiled:
    """An ONNX Runtime session with a fixed number of threads."""

    def __init__(self, model: bytes, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # An arena keeps what a request needed for ever: measured 1 MB for each session of 200 trees, and no gain in time.
        options.enable_cpu_mem_arena = False
        # A waiting thread that spins takes the core from the server's own loop.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(f"the compiled model does not load: {error}", next="register the model again") from error

    def run(self, matrix: Matrix) -> Floats:
        (answer,) = self._session.run([OUTPUT], {INPUT: matrix})
        return np.asarray(answer, dtype=np.float64)

    def close(self) -> None:
        return None


class _Direct:
    """A fitted model in this process."""

    def __init__(self, answer: Callable[[Matrix], Floats]) -> None:
        self._answer = answer

    def run(self, matrix: Matrix) -> Floats:
        return np.asarray(self._answer(matrix), dtype=np.float64)

    def close(self) -> None:
        return None


class _Native:
    """A model that did not compile, in a child process."""

    def __init__(self, folder: Path, worker: Worker | None) -> None:
        self._folder, self._own = folder, worker is None
        self._worker = worker or Worker()

    def run(self, matrix: Matrix) -> Floats:
        return self._worker.call("run", self._folder, matrix)[1]

    def close(self) -> None:
        if self._own:
            self._worker.close()


def _engine(folder: Path, contract: Contract, threads: int, worker: Worker | None) -> _Engine:
    return _Compiled(_read(folder / "model.onnx"), threads) if contract.compiled == "onnx" else _Native(folder, worker)


def verify(folder: Path, expected: str) -> None:
    """Hold a bundle's files against the hash that was registered.

    Raises
    ------
    BundleError
        Naming both hashes.
    """
    found = hash_folder(folder) if folder.is_dir() else "nothing"
    if found != expected:
        raise BundleError(
            f"{folder} is not the bundle that was registered: expected {expected}, found {found}",
            next="restore the folder, or register the model again",
            bundle=expected,
        )


@dataclass(frozen=True, slots=True)
class _Shared:
    features: Features
    inputs: tuple[InputField, ...]
    plain: Plain | None


_SHARED: OrderedDict[tuple[str, str], _Shared] = OrderedDict()
"""Feature functions of this process by the hash of their source and their name: the members of a fleet share one."""


def _features(folder: Path, contract: Contract) -> tuple[Features, Plain | None]:
    # Executed and proved row-wise once for each source, not for each of ten thousand members; values are compared for each.
    same = (hash_code(folder / "transform"), contract.transform["function"])
    known = _SHARED.get(same)
    features = known.features if known else load_features(folder / "transform", contract.transform["function"])
    if contract.format < _SAMPLED:
        return features, None
    sample = _prove(folder, contract, features, row_wise=known is None)
    if known is None or known.inputs != contract.inputs:
        known = _Shared(features, contract.inputs, _plain(contract, features, sample))
    _SHARED[same] = known
    while len(_SHARED) > 64:
        _SHARED.popitem(last=False)
    return features, known.plain


def _plain(contract: Contract, features: Features, sample: pl.DataFrame) -> Plain | None:
    types = {field.name: dtype_of(field.dtype) for field in contract.inputs}
    fits = not contract.joins and all(sample.schema.get(name) == dtype for name, dtype in types.items())
    return read_plain(features, sample.select(list(types))) if fits else None


def _prove(folder: Path, contract: Contract, features: Features, *, row_wise: bool) -> pl.DataFrame:
    sample = read_sample(_read_json(folder / "sample.json"))
    try:
        prove_sample(features, contract.features, sample, row_wise=row_wise)
    except TransformError as error:
        # Not the fault of a request, which is what a TransformError says to whoever serves.
        raise BundleError(
            f"{contract.model}, bundle {folder.name}: {error.detail}", next=error.next, **{**error.facts, "bundle": folder.name}
        ) from error
    return sample.rows


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"the bundle has no readable {path.name}", next="register the model again", file=str(path)) from error


def _read_json(path: Path) -> Json:
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise BundleError(f"{path.name} is not JSON: {error}", next="register the model again", file=str(path)) from error
    if not isinstance(value, dict):
        raise BundleError(f"{path.name} is not a JSON object", next="register the model again", file=str(path))
    return value
