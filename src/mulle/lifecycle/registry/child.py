"""The child of `kernel.worker`: opens bundles, runs models that did not compile, explains answers; gone with its parent.

Run as ``python -m mulle.lifecycle.registry.child LIFELINE``; messages come on stdin and leave on stdout, framed as
`kernel.worker.pack_frame` says.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from mulle.core.errors import BundleError, ContractError, MulleError
from mulle.core.records.base import Json
from mulle.kernel.bundle import OUTPUT, read_contract
from mulle.kernel.fitted import answers
from mulle.kernel.graph import open_graph
from mulle.kernel.lifeline import die_with_parent
from mulle.kernel.worker import pack_frame, read_frame
from mulle.lifecycle.registry.explain import Explainer, open_explainer

__all__ = ["main", "serve"]

_KEPT = 16
"""Bundles that stay open; the least recently asked go first."""

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class _Opened:
    """A bundle's model, and what explains it once that is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.contract = read_contract(folder)
        self._run: Callable[[Matrix], Floats]
        if self.contract.compiled == "onnx":
            self._run = partial(open_graph((folder / "model.onnx").read_bytes()).run, OUTPUT)
        else:
            # Imported late: explaining compiled models needs no training library.
            from mulle.lifecycle.registry.native import open_native

            self._run = partial(answers, open_native(folder), task=self.contract.task)

    def run(self, matrix: Matrix) -> Floats:
        """Answer an encoded matrix; float64 (n, outputs)."""
        try:
            return self._run(matrix).reshape(len(matrix), -1)
        except (ValueError, TypeError) as error:
            raise ContractError(
                f"{self.contract.model}: the model refuses these rows: {str(error).strip().splitlines()[0][:300]}",
                next="send values as they were in training", model=self.contract.model,
            ) from error  # fmt: skip

    @cached_property
    def explainer(self) -> Explainer:
        """What explains its answers."""
        return open_explainer(self._folder, self.contract, self.run)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer messages from `source` on `sink` until it ends."""
    opened: OrderedDict[str, _Opened] = OrderedDict()
    while True:
        try:
            words, cells = read_frame(source.read)
        except EOFError:
            return
        try:
            reply = _reply(opened, words, cells)
        except MulleError as error:
            told = {"kind": type(error).__name__, "detail": error.detail, "next": error.next, "facts": error.facts}
            reply = pack_frame({"error": told})
        except Exception as error:
            detail = f"{Path(words['folder']).name} failed: {type(error).__name__}: {str(error)[:300]}"
            reply = pack_frame({"error": {"kind": "BundleError", "detail": detail, "next": "see the server's log", "facts": {}}})
        sink.write(reply)
        sink.flush()


def _reply(opened: OrderedDict[str, _Opened], words: Json, cells: bytes) -> bytes:
    found = _opened(opened, words["folder"])
    if words["op"] == "open":
        return pack_frame({})
    matrix = np.frombuffer(cells, dtype=np.float32).reshape(words["shape"])
    if words["op"] == "run":
        given = np.asarray(found.run(matrix), dtype=np.float64)
        return pack_frame({"shape": given.shape}, given)
    explained = found.explainer.explain(matrix)
    told = {"shape": explained.cells.shape, "columns": found.explainer.columns, "explains": explained.what, "by": explained.by}
    return pack_frame(told, explained.cells)


def _opened(opened: OrderedDict[str, _Opened], folder: str) -> _Opened:
    if folder not in opened:
        try:
            opened[folder] = _Opened(Path(folder))
        except OSError as error:
            raise BundleError(f"{Path(folder).name} has no readable model: {error}", next="register the model again") from error
        while len(opened) > _KEPT:
            opened.popitem(last=False)
    opened.move_to_end(folder)
    return opened[folder]


def main() -> None:
    """Serve until the parent closes stdin or dies."""
    die_with_parent(int(sys.argv[1]))
    # What a library prints would be read as an answer: the real stdout is kept for messages alone.
    with os.fdopen(os.dup(1), "wb") as sink:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
