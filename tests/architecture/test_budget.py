"""The figures that keep the code readable. A failure here asks for a split, not for a larger figure."""

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator

from architecture.source import FUNCTION, ROOT, Module, classes, functions, length, modules, modules_of_tests

MODULE_MAX, MODULE_MEDIAN = 450, 150
FUNCTION_MAX, FUNCTION_P95 = 60, 35
CLASS_MAX, ATTRIBUTES_MAX = 300, 14
POSITIONAL_MAX = 5
SUPPRESSIONS_PER_KLOC = 3.0

SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|fmt:)")
# A name of the rule in brackets or after a colon, then the reason after a second "#" or a dash.
REASONED = re.compile(r"#\s*noqa: [A-Z]+\d+(?:,\s*[A-Z]+\d+)* +(?:-|#) *\S|#\s*type: ignore\[[a-z, -]+\]")
WALL_CLOCK_EDGES = ("stoker.runtime", "stoker.api", "stoker.cli", "stoker_router.main")
VIRTUAL_TIME = re.compile(r"MockClock|^from simulated import|^import simulated", re.MULTILINE)
VAGUE = re.compile(r"(?i)^_?(\w*(manager|handler|utils?|helpers?|common|runner|watcher))$")


def report(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


def each(kind: type | tuple[type, ...]) -> Iterator[tuple[Module, ast.AST]]:
    return (
        (module, node) for module in modules() for node in ast.walk(module.tree) if isinstance(node, kind)
    )


def test_no_module_is_too_long() -> None:
    report([f"{m.path}: {m.lines} lines" for m in modules() if m.lines > MODULE_MAX])
    assert statistics.median(m.lines for m in modules() if m.lines > 5) <= MODULE_MEDIAN


def test_no_function_is_too_long() -> None:
    found = [(length(node), m, node) for m in modules() for node in functions(m.tree)]
    report([f"{m.path}:{f.lineno}: {f.name}: {n} lines" for n, m, f in found if n > FUNCTION_MAX])
    assert statistics.quantiles([n for n, _, _ in found], n=20)[-1] <= FUNCTION_P95


def test_no_class_is_too_long_or_knows_too_much() -> None:
    report(
        [
            f"{m.path}:{c.lineno}: class {c.name}: {length(c)} lines, {len(attributes(c))} attributes"
            for m in modules()
            for c in classes(m.tree)
            if length(c) > CLASS_MAX or len(attributes(c)) > ATTRIBUTES_MAX
        ]
    )


def attributes(node: ast.ClassDef) -> set[str]:
    """Names that its methods assign to on self."""
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.ctx, ast.Store)
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "self"
    }


def test_few_positional_arguments() -> None:
    report(
        [
            f"{m.path}:{f.lineno}: {f.name}: {count}"
            for m in modules()
            for f in functions(m.tree)
            if (count := positional(f)) > POSITIONAL_MAX
        ]
    )


def positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    decorators = {ast.unparse(d).partition("(")[0] for d in function.decorator_list}
    if any(d.startswith(("click.", "_")) or d.endswith((".command", ".option")) for d in decorators):
        return 0  # the command line hands its parameters over by name
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_everything_is_typed() -> None:
    report(
        [
            f"{m.path}:{f.lineno}: {f.name}"
            for m in modules()
            for f in functions(m.tree)
            if f.returns is None or any(a.annotation is None for a in arguments(f))
        ]
    )


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    named += [a for a in (given.vararg, given.kwarg) if a is not None]
    return [a for i, a in enumerate(named) if not (i == 0 and a.arg in ("self", "cls"))]


def test_every_package_says_that_it_is_typed() -> None:
    packages = {(m.path.split("/")[0], m.package) for m in modules()}
    report([f"{base}/{name}" for base, name in packages if not (ROOT / base / name / "py.typed").exists()])


def test_public_things_are_documented() -> None:
    report(
        [
            f"{m.path}:{getattr(node, 'lineno', 1)}: {getattr(node, 'name', 'module')}"
            for m in modules()
            for node in public(m.tree)
            if m.text.strip() and not ast.get_docstring(node)
        ]
    )


def public(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    yield tree
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, *FUNCTION)) and not node.name.startswith("_"):
            yield node


def comments(module: Module) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_suppressions_are_rare_and_reasoned() -> None:
    found = [(m, n, text) for m in modules() for n, text in comments(m) if SUPPRESSION.search(text)]
    counted = [entry for entry in found if "fmt:" not in entry[2]]
    report([f"{m.path}:{n}: {text}" for m, n, text in counted if not REASONED.search(text)])
    code = sum(1 for m in modules() for line in m.text.splitlines() if line.strip()) / 1000
    assert len(counted) / code <= SUPPRESSIONS_PER_KLOC, f"{len(counted)} suppressions in {code:.1f} kloc"


def test_the_wall_clock_is_read_at_the_edges_only() -> None:
    report(
        [
            f"{module.path}:{node.lineno}"
            for module, node in each(ast.Attribute)
            if isinstance(node, ast.Attribute)
            and ast.unparse(node) in ("time.time", "time.time_ns", "datetime.now", "datetime.datetime.now")
            and not module.name.startswith(WALL_CLOCK_EDGES)
        ]
    )


def test_names_say_what_a_thing_is() -> None:
    found = [f"{m.path}: module" for m in modules() if VAGUE.match(m.name.rpartition(".")[2])]
    found += [
        f"{m.path}:{c.lineno}: class {c.name}"
        for m in modules()
        for c in classes(m.tree)
        if VAGUE.match(c.name)
    ]
    allowed = {"daemon/stoker/plugin/manager.py: module"}  # named so in the design, beside pluggy's own
    report([entry for entry in found if entry not in allowed])


def test_tests_do_not_sleep_for_a_while_and_hope() -> None:
    """A wait is for a condition, in a loop with a deadline. Where time is virtual, sleep is free."""
    report(
        [
            f"{m.path}:{call.lineno}: {ast.unparse(call)}"
            for m in modules_of_tests()
            if not VIRTUAL_TIME.search(m.text)
            and not m.path.startswith(("tests/simulation/", "tests/bench/"))
            for call in hopeful_sleeps(m.tree)
        ]
    )


def hopeful_sleeps(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls of sleep with a fixed time above zero, outside of loops and of fakes (functions in functions)."""
    patient = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.While, ast.For, ast.AsyncFor, *FUNCTION))
        for loop in ([outer] if not isinstance(outer, FUNCTION) else nested(outer))
        for inner in ast.walk(loop)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node not in patient and ast.unparse(node.func).endswith("sleep"):
            value = node.args[0] if node.args else None
            if isinstance(value, ast.Constant) and isinstance(value.value, int | float) and value.value > 0:
                yield node


def nested(function: ast.AST) -> Iterator[ast.AST]:
    """Functions within a function: what a fake does, not what a test waits for."""
    return (node for node in ast.walk(function) if isinstance(node, FUNCTION) and node is not function)
