"""Imports point down, go in no circle, and none is hidden in a function of what is decided or applied."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

from tests.support import ROOT

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "ingest").rglob("*.py")
}
# What each layer may import of ours, beside itself.
MAY: dict[str, tuple[str, ...]] = {
    "ingest.core": ("ingest.errors", "ingest.text"),
    "ingest.plans": ("ingest.core", "ingest.errors", "ingest.ports"),
    "ingest.warehouse": (
        "ingest.core", "ingest.disk", "ingest.errors", "ingest.plans", "ingest.ports", "ingest.settings", "ingest.text",
    ),
}  # fmt: skip


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ingest"):
            whole = [f"{node.module}.{one.name}" for one in node.names]
            yield from (name if name in MODULES else str(node.module) for name in whole)
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.startswith("ingest"))


def test_no_module_needs_itself() -> None:
    """Also by way of an import that stands in a function; types are another matter."""
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body.clear()
        graph[name] = set(imported(tree)) & MODULES.keys() - {name}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("layer", MAY)
def test_a_layer_imports_what_lies_below_it_in_no_circle_and_nothing_in_secret(layer: str) -> None:
    ours = {name: ast.parse(path.read_text()) for name, path in MODULES.items() if name.startswith(f"{layer}.")}
    graph = {name: set(imported(tree)) for name, tree in ours.items()}
    TopologicalSorter({name: {one for one in of if one in ours} for name, of in graph.items()}).prepare()
    for name, tree in ours.items():
        strange = [one for one in graph[name] if not one.startswith((f"{layer}.", *MAY[layer]))]
        assert strange == [], name
        inner = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)]
        hidden = [one for node in inner for one in imported(node)]
        assert layer == "ingest.core" or hidden == [], name
