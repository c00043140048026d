"""The shape of the code, held by test: budgets, one-way imports, vendors in their rooms, words in their places."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "mulle"

FILE_LINES = 400
FUNCTION_LINES = 40
PUBLIC_METHODS = 15
ATTICS = {"utils", "util", "helpers", "helper", "common", "misc"}

# Rooms by vendor; "" is the whole package. A vendor that is not named here may be used nowhere.
BELOW_SURFACES = ("core", "kernel", "lifecycle", "loop", "delivery", "adapters", "bootstrap")
FITTING = ("lifecycle/training", "lifecycle/evaluation", "lifecycle/registry")
VENDORS: dict[str, tuple[str, ...]] = {
    "polars": BELOW_SURFACES,
    "numpy": ("kernel", "lifecycle", "loop", "delivery", "adapters", "bootstrap"),
    "scipy": ("kernel", "lifecycle", "loop", "delivery", "adapters", "bootstrap"),
    "pyarrow": ("adapters/lake", "adapters/sources", "lifecycle/data"),
    "onnxruntime": ("kernel",),
    "onnx": FITTING,
    "skl2onnx": FITTING,
    "onnxmltools": FITTING,
    "skops": FITTING,
    "sklearn": (*FITTING, "lifecycle/data", "lifecycle/features"),
    "lightgbm": (*FITTING, "lifecycle/features"),
    "skrub": ("lifecycle/data",),
    "optuna": FITTING,
    "joblib": FITTING,
    "deltalake": ("adapters/lake",),
    "duckdb": ("lifecycle/data",),
    "sqlalchemy": ("adapters/metadata", "adapters/sources"),
    "alembic": ("adapters/metadata",),
    "mlflow": ("adapters/tracking",),
    "dbos": ("loop/engine",),
    "distributed": ("adapters/compute",),
    "lmdb": ("adapters/online",),
    "redis": ("adapters/online",),
    "confluent_kafka": ("adapters/sources", "adapters/streams"),
    "fastavro": ("adapters/streams",),
    "urllib3": ("adapters/sources",),
    "fastapi": ("surfaces",),
    "starlette": ("surfaces",),
    "pydantic": ("surfaces",),
    "uvicorn": ("surfaces",),
    "httptools": ("surfaces",),
    "typer": ("surfaces",),
    "click": ("surfaces",),
    "rich": ("surfaces",),
    "plotly": ("surfaces",),
    "prometheus_client": ("surfaces", "lifecycle/serving"),
    "apprise": ("adapters/alerts",),
    "opentelemetry": ("adapters/traces",),
    "grpc": ("surfaces/inference",),
    "google": ("surfaces/inference",),
    "orjson": ("kernel", "lifecycle", "adapters", "loop", "surfaces"),
}

# What a process that answers requests must never load, and what `mulle --help` must not wait for.
NOT_BEHIND_A_PREDICTION = {
    *("mlflow", "sklearn", "pandas", "lightgbm", "optuna", "dbos", "duckdb", "sqlalchemy", "alembic", "fastapi", "skl2onnx"),
}
NOT_FOR_HELP = NOT_BEHIND_A_PREDICTION | {"polars", "numpy", "pyarrow", "deltalake", "onnxruntime"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def place(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


def is_migration(path: Path) -> bool:
    # Alembic runs these scripts by file name; they are loaded by it alone and export nothing.
    return "migrations" in path.parts


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of_code(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From ``def`` to the last line, the docstring's lines not counted."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def type_checking_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST, *, typing_too: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import below a node, those inside functions too; those for type checkers only when asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif typing_too or not type_checking_only(child):
            yield from imports(child, typing_too=typing_too)


def imported_modules(name: str, path: Path) -> set[str]:
    """Modules of ours that a module imports at run time, wherever in the file."""
    found: set[str] = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in imports(tree(path), typing_too=False):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in modules()}
            continue
        base = node.module or ""
        if node.level:
            anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*anchor, *([base] if base else [])])
        for alias in node.names:
            target = f"{base}.{alias.name}"
            found |= {target} & modules().keys() or {base} & modules().keys()
    return found - {name}


def loops(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for after in sorted(graph.get(node, ())):
            if after not in index:
                visit(after)
                low[node] = min(low[node], low[after])
            elif after in stack:
                low[node] = min(low[node], index[after])
        if low[node] == index[node]:
            cut = stack.index(node)
            component = sorted(stack[cut:])
            del stack[cut:]
            if len(component) > 1:
                found.append(component)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def public(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")


def test_no_file_is_longer_than_its_budget() -> None:
    kinds = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.py")]
    long = {str(p.relative_to(ROOT)): n for p in kinds if (n := len(p.read_text().splitlines())) > FILE_LINES}
    assert not long, f"files above {FILE_LINES} lines: {long}"


def test_no_function_is_longer_than_its_budget() -> None:
    long = {
        f"{place(path)}:{node.name}": n
        for path in modules().values()
        for node in functions(path)
        if (n := lines_of_code(node)) > FUNCTION_LINES
    }
    assert not long, f"functions above {FUNCTION_LINES} lines of code: {long}"


def test_no_class_is_wider_than_its_budget() -> None:
    wide = {}
    for path in modules().values():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                count = sum(1 for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and public(n))
                if count > PUBLIC_METHODS:
                    wide[f"{place(path)}:{node.name}"] = count
    assert not wide, f"classes with more than {PUBLIC_METHODS} public methods: {wide}"


def test_packages_hold_a_docstring_and_no_code() -> None:
    found = [
        str(p.parent.relative_to(SOURCE)) for p in SOURCE.rglob("__init__.py") if p.parent != SOURCE and len(tree(p).body) != 1
    ]
    assert not found, f"packages with code in __init__.py: {found}"


def test_the_root_package_holds_only_its_name_table() -> None:
    allowed = (ast.Expr, ast.ImportFrom, ast.Assign)
    rest = [n for n in tree(SOURCE / "__init__.py").body if not isinstance(n, allowed)]
    assert [getattr(n, "name", type(n).__name__) for n in rest] == ["__getattr__"]


def test_every_folder_of_modules_is_a_package() -> None:
    missing = {str(p.parent.relative_to(SOURCE)) for p in SOURCE.rglob("*.py") if not (p.parent / "__init__.py").is_file()}
    missing = {m for m in missing if "migrations" not in m and "template" not in m}
    assert not missing, f"folders without __init__.py: {missing}"


def test_no_import_loops_inner_imports_counted() -> None:
    found = loops({name: imported_modules(name, path) for name, path in modules().items()})
    assert not found, f"import loops: {found}"


def test_the_loop_finder_finds_loops() -> None:
    assert loops({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert loops({"a": {"b"}, "b": {"c"}}) == []


def test_vendors_stay_in_their_rooms() -> None:
    outside = []
    for name, path in modules().items():
        for node in imports(tree(path), typing_too=False):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for vendor in {n.split(".")[0] for n in names if not (isinstance(node, ast.ImportFrom) and node.level)}:
                if vendor in sys.stdlib_module_names or vendor == "mulle":
                    continue
                rooms = VENDORS.get(vendor, ())
                if not any(f"{place(path)}/".startswith(f"{room}/") for room in rooms):
                    outside.append(f"{name}:{node.lineno} imports {vendor} (allowed in: {', '.join(rooms) or 'nowhere'})")
    assert not outside, "\n".join(["vendors outside their rooms:", *outside])


def test_no_attics() -> None:
    found = [name for name in modules() if ATTICS & set(name.split("."))]
    assert not found, f"modules named after nothing: {found}"


@pytest.mark.parametrize("what", ["docstring", "__all__", "annotations"])
def test_every_module_opens_properly(what: str) -> None:
    lacking = []
    for name, path in modules().items():
        body = tree(path).body
        empty = path.name in {"__init__.py", "__main__.py"}
        targets = [
            t
            for n in body
            if isinstance(n, ast.Assign | ast.AnnAssign)
            for t in getattr(n, "targets", [getattr(n, "target", None)])
        ]
        assigned = {t.id for t in targets if isinstance(t, ast.Name)}
        has = {
            "docstring": ast.get_docstring(tree(path)) is not None,
            "__all__": empty or is_migration(path) or "__all__" in assigned,
            "annotations": empty or is_migration(path) or "from __future__ import annotations" in path.read_text(),
        }
        if not has[what]:
            lacking.append(name)
    assert not lacking, f"modules without {what}: {lacking}"


def test_what_is_exported_exists_and_is_sorted_once() -> None:
    wrong = []
    for name, path in modules().items():
        for node in tree(path).body:
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
                words = [e.value for e in getattr(node.value, "elts", []) if isinstance(e, ast.Constant)]
                wrong += [f"{name}.{w}" for w in words if words.count(w) > 1]
                wrong += [f"{name}.{w}" for w in words if name != "mulle" and str(w) not in top_level_names(path)]
    assert not wrong, f"names in __all__ that are missing or doubled: {wrong}"


def top_level_names(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {a.asname or a.name for a in node.names}
    return found


def test_every_public_name_has_a_docstring() -> None:
    silent = []
    for name, path in modules().items():
        if is_migration(path):
            continue
        for node in tree(path).body:
            if not public(node):
                continue
            if ast.get_docstring(node) is None:  # type: ignore[arg-type]
                silent.append(f"{name}.{node.name}")  # type: ignore[attr-defined]
            if isinstance(node, ast.ClassDef):
                silent += [f"{name}.{node.name}.{m.name}" for m in node.body if public(m) and ast.get_docstring(m) is None]  # type: ignore[attr-defined, arg-type]
    assert not silent, f"public names without a docstring: {silent}"


def test_rules_take_the_time_from_a_clock() -> None:
    found = []
    for name, path in modules().items():
        if name == "mulle.core.clock":
            continue
        calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        found += [f"{name}:{c.lineno}" for c in calls if ast.unparse(c.func) in {"datetime.now", "datetime.utcnow", "date.today"}]
    assert not found, f"the wall clock is read outside core/clock.py: {found}"


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys\nprint('\\n'.join({{m.split('.')[0] for m in sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


def test_import_mulle_loads_nothing() -> None:
    assert not loaded_after("import mulle") & NOT_FOR_HELP


def test_help_waits_for_no_vendor() -> None:
    assert not loaded_after("import mulle.surfaces.cli.main") & NOT_FOR_HELP


def test_the_engine_leaves_trainers_to_the_processes_that_compute() -> None:
    trainers = {"sklearn", "lightgbm", "optuna", "onnx", "skl2onnx", "skrub"}
    heavy = loaded_after("import mulle.loop.live, mulle.loop.replay.play") & trainers
    assert not heavy, f"the engine's process loads {sorted(heavy)}"


def test_the_inference_process_is_lean() -> None:
    behind = (
        "mulle.surfaces.inference",
        "mulle.lifecycle.serving",
        "mulle.lifecycle.features.read",
        "mulle.adapters.online",
        "mulle.kernel.",
    )
    rooms = ["mulle.bootstrap", *(n for n in modules() if n.startswith(behind))]
    heavy = loaded_after("\n".join(f"import {name}" for name in rooms)) & NOT_BEHIND_A_PREDICTION
    assert not heavy, f"the process that answers requests loads {sorted(heavy)}"
