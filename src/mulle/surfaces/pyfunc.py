"""The bundle as an MLflow model: what ``loader_module`` in its MLmodel file names.

MLflow serves the bundle from its own folder, without a home: there is no online store, so joined columns are read as
null. A model with joins still answers, as it would for a key nobody has seen; ask Mulle's own server for the real thing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mulle.kernel.bundle import Predictor

__all__ = ["PyFunc"]


class PyFunc:
    """What MLflow calls.

    Parameters
    ----------
    predictor : Predictor
        The loaded bundle.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[float] | list[str]:
        """Answer a pandas or Polars frame, or a list of rows, of raw columns.

        Returns
        -------
        list
            One value per row: a number, or the class.

        Raises
        ------
        ContractError
            When a row breaks the bundle's contract.
        """
        del params
        from mulle.core.clock import WallClock
        from mulle.loop.data.offline import answer_without_store

        return answer_without_store(self._predictor, _rows(model_input), WallClock().now())


def _rows(model_input: Any) -> list[dict[str, Any]]:
    if hasattr(model_input, "to_dicts"):
        found: list[dict[str, Any]] = model_input.to_dicts()
        return found
    if hasattr(model_input, "to_dict"):
        # pandas writes a missing number as NaN and a time as its own kind; the contract's reader takes null and datetime.
        rows: list[dict[str, Any]] = model_input.to_dict(orient="records")
        return [{str(k): _plain(v) for k, v in row.items()} for row in rows]
    return [dict(row) for row in model_input]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    value = value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
    return None if value != value else value


def _load_pyfunc(path: str) -> PyFunc:
    from mulle.kernel.bundle import Predictor

    folder = Path(path)
    return PyFunc(Predictor.open(folder if (folder / "bundle.json").is_file() else folder / "bundle"))
