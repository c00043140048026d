"""Running an ONNX graph by hand, and finding out what it takes and gives: for models that were trained elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from mulle.core.errors import BundleError

__all__ = ["Graph", "open_graph"]


@dataclass(frozen=True, slots=True)
class Graph:
    """A loaded graph.

    Attributes
    ----------
    inputs, outputs : tuple of (name, type, shape)
        Types as ONNX Runtime says them, ``tensor(float)``; a size that is open is a text or None.
    """

    inputs: tuple[tuple[str, str, tuple[int | str | None, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[int | str | None, ...]], ...]
    session: ort.InferenceSession

    def run(self, output: str, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Give one output for an encoded matrix, as the graph shapes it."""
        (answer,) = self.session.run([output], {self.inputs[0][0]: matrix})
        return np.asarray(answer, dtype=np.float64)


def open_graph(model: bytes) -> Graph:
    """Load a graph on one thread.

    Raises
    ------
    BundleError
        When it does not load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"the graph does not load: {str(error)[:300]}", next="check it with onnx.checker") from error
    told = [tuple((n.name, n.type, tuple(n.shape)) for n in side) for side in (session.get_inputs(), session.get_outputs())]
    return Graph(told[0], told[1], session)
