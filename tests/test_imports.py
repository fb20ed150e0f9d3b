"""One direction of imports: a module may import only from its own layer and those above it in this list."""

import ast
from pathlib import Path

import pytest

LAYERS = (
    "errors", "names", "given", "launch", "reading", "atomic", "rope", "theory", "runtimes", "record", "progress", "checkpoint", "extension", "exporting", "inspection", "checking",
    "planning",
    "text", "pilot", "model", "train", "evals", "searching", "reports", "splits", "targets", "pipeline", "arguments", "answers", "tables", "commands", "cli", "__main__",
)  # fmt: skip
PACKAGE = Path(__file__).parents[1] / "src" / "ropewalk"
HEAVY = {"torch", "transformers", "safetensors", "tokenizers"}
LIGHT_LAYERS = {
    "errors",
    "names",
    "given",
    "reading",
    "atomic",
    "rope",
    "theory",
    "runtimes",
    "record",
    "progress",
    "checkpoint",
    "extension",
    "inspection",
    "checking",
    "planning",
    "text",
    "reports",
    "targets",
    "arguments",
    "answers",
    "tables",
}


def imported(path: Path, *, at_import_time: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_import_time else list(ast.walk(tree))
    found = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return found | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    allowed = LAYERS[: LAYERS.index(layer(path)) + 1]
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("ropewalk.")}
    assert ours <= set(allowed), f"{path} imports {ours - set(allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_light_layers_do_not_import_the_frameworks(path: Path) -> None:
    if layer(path) in LIGHT_LAYERS:
        assert not {name.split(".")[0] for name in imported(path)} & HEAVY
    elif layer(path) in ("commands", "cli"):  # each verb imports what it needs
        assert not {name.split(".")[0] for name in imported(path, at_import_time=True)} & HEAVY


def test_reports_do_not_know_what_made_the_records() -> None:
    for path in (PACKAGE / "reports").glob("*.py"):
        names = {name.split(".")[1] for name in imported(path) if name.startswith("ropewalk.")}
        assert names <= {"reports", "record", "errors", "rope", "names", "given", "reading", "atomic"}


def test_no_verb_is_hidden_by_a_module_of_its_name() -> None:
    """A submodule that is imported becomes an attribute of the package, and would take the function's place."""
    import ropewalk

    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not modules & set(ropewalk.__all__)
