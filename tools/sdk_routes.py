"""The routes an HTTP client can call, read from its Python sources without importing them.

Every function is walked in the order of its statements. For each name we keep the texts it may hold at that
point (both branches of an `if` count), with `UNKNOWN` for what only a run could tell; so a path built by
`format`, `%`, `+`, an f-string, a constant of the module, an attribute of the class or an argument of a
private function comes out as a template. What does not is returned with `path=None` for a person to look at.
"""

import ast
import itertools
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

UNKNOWN = "\0"
NOTHING_KNOWN = frozenset({UNKNOWN})
MOST_VALUES = 64  # a text with more possible values than this is taken as unknown
MOST_ROUNDS = 6  # a fact passes at most this many attributes and private functions

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
API_PREFIX = "/api/v1"  # stands in the client's environment URL, so its paths leave it out

# The client's own senders: which argument holds the path, and the method when it is no argument.
API_SENDERS = {
    "gen_request": ("path", None),
    "gen_async_request": ("path", None),
    "upload_file_async": ("remote_url", "POST"),
}
# Senders of the HTTP libraries, which take a whole URL.
URL_SENDERS: dict[str, str | None] = {name.lower(): name for name in METHODS}
URL_SENDERS |= {"request": None, "Request": None, "_request": None}
URL_SENDERS |= {"open": "GET", "urlopen": "GET", "urlretrieve": "GET"}  # of webbrowser and of urllib.request
URL_LIBRARIES = ("requests", "httpx", "webbrowser", "urllib.request")

# Functions whose text answer is their first argument, changed only behind the "?" or in its escaping.
PASSING_ON = {"quote": "", "str": "", "generate_url_query_params": f"?{UNKNOWN}"}

PERCENT = re.compile(r"%(?:%|(?:\(\w+\))?[-#0 +]*\d*(?:\.\d+)?[a-zA-Z])")

Values = frozenset[str]
Scope = dict[str, Values]  # what a name may hold; `self.name` for attributes
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Call:
    site: str  # module.function
    method: str  # upper case, "?" when only a run could tell
    path: str | None  # with {} for a variable segment and without query; None when only a run could tell
    file: str
    line: int
    expression: str  # what the source gives as path


def find_calls(sources: Mapping[str, str]) -> list[Call]:
    """Every request in `sources` (file name -> text), sorted; one call per possible path."""
    calls: set[Call] = set()
    for file, text in sources.items():
        calls.update(_read_module(file, ast.parse(text, file)))
    return sorted(calls, key=lambda call: (call.site, call.line, call.method, call.path or ""))


@dataclass
class _Facts:
    """What one round over a module learned about attributes and about arguments of private functions."""

    attributes: dict[tuple[str, str], Values] = field(default_factory=dict)  # (class, attribute)
    arguments: dict[tuple[str, str], Values] = field(default_factory=dict)  # (function, parameter)


def _read_module(file: str, tree: ast.Module) -> set[Call]:
    known = _Facts()
    walk = _Walk(file, known)
    for _ in range(MOST_ROUNDS):
        walk = _Walk(file, known)
        walk.module(tree)
        if walk.learned == known:
            break
        known = walk.learned
    return walk.calls


class _Walk:
    """One round over one module: collects calls, using what the round before learned."""

    def __init__(self, file: str, known: _Facts) -> None:
        self.file = file
        self.known = known
        self.learned = _Facts()
        self.calls: set[Call] = set()
        self.functions: list[str] = []  # names of the functions around the statement, outermost first
        self.class_name = ""
        self.private: dict[str, Function] = {}  # by name; no other module can call them

    def module(self, tree: ast.Module) -> None:
        nodes = [node for node in ast.walk(tree) if isinstance(node, Function)]
        self.private = {node.name: node for node in nodes if _is_private(node.name)}
        self.block(tree.body, {})

    # Each takes what is known before a statement and returns what is known after it, None if nothing follows.

    def block(self, statements: Sequence[ast.stmt], scope: Scope) -> Scope | None:
        after: Scope | None = scope
        for statement in statements:
            # What stands behind a return is walked too: its calls count.
            after = self.statement(statement, {} if after is None else after)
        return after

    def statement(self, node: ast.stmt, scope: Scope) -> Scope | None:
        after: Scope | None = scope
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.function(node, scope)
            case ast.ClassDef():
                self.definition(node, scope)
            case ast.If():
                self.expressions([node.test], scope)
                after = _either(self.block(node.body, dict(scope)), self.block(node.orelse, dict(scope)))
            case ast.For() | ast.AsyncFor() | ast.While():
                after = self.loop(node, scope)
            case ast.With() | ast.AsyncWith():
                self.expressions([item.context_expr for item in node.items], scope)
                for item in node.items:
                    _forget(item.optional_vars, scope)
                after = self.block(node.body, scope)
            case ast.Try() | ast.TryStar():
                after = self.attempt(node, scope)
            case ast.Match():
                self.expressions([node.subject], scope)
                after = _either(scope, *(self.block(case.body, dict(scope)) for case in node.cases))
            case ast.Return() | ast.Raise():
                self.expressions([node], scope)
                after = None
            case _:
                self.expressions([node], scope)
                self.assignment(node, scope)
        return after

    def function(self, node: Function, scope: Scope) -> None:
        self.expressions(node.decorator_list, scope)
        inner = dict(scope)
        for parameter in _parameters(node):
            inner[parameter] = self.known.arguments.get((node.name, parameter), NOTHING_KNOWN)
        self.functions.append(node.name)
        self.block(node.body, inner)
        self.functions.pop()

    def definition(self, node: ast.ClassDef, scope: Scope) -> None:
        outer, self.class_name = self.class_name, node.name
        attributes = {name: values for (owner, name), values in self.known.attributes.items() if owner == node.name}
        inner = scope | {f"self.{name}": values for name, values in attributes.items()}
        for statement in node.body:
            own: Scope = {}
            self.assignment(statement, own)
            for name, values in own.items():
                self.learn_attribute(name, values)
            if not own:
                self.statement(statement, inner)
        self.class_name = outer

    def loop(self, node: ast.For | ast.AsyncFor | ast.While, scope: Scope) -> Scope | None:
        if isinstance(node, ast.While):
            self.expressions([node.test], scope)
        else:
            self.expressions([node.iter], scope)
            _forget(node.target, scope)
        again = _either(scope, self.block(node.body, dict(scope))) or {}  # what the second turn starts with
        after = _either(again, self.block(node.body, dict(again)))
        return self.block(node.orelse, after or {}) if node.orelse else after

    def attempt(self, node: ast.Try | ast.TryStar, scope: Scope) -> Scope | None:
        done = self.block(node.body, dict(scope))
        failed = _either(scope, done) or {}
        ends = [self.block(handler.body, dict(failed)) for handler in node.handlers]
        ends.append(self.block(node.orelse, done) if done is not None and node.orelse else done)
        after = _either(*ends)
        if not node.finalbody:
            return after
        last = self.block(node.finalbody, dict(failed if after is None else after))
        return None if after is None else last

    def assignment(self, node: ast.stmt, scope: Scope) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                values = self.text(value, scope)
                for target in targets:
                    self.assign(target, values, scope)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.assign(target, self.text(value, scope), scope)
            case ast.AugAssign(target=target, op=ast.Add(), value=value):
                self.assign(target, _joined([self.text(target, scope), self.text(value, scope)]), scope)
            case ast.AugAssign(target=target):
                self.assign(target, NOTHING_KNOWN, scope)
            case _:
                pass

    def assign(self, target: ast.expr, values: Values, scope: Scope) -> None:
        match target:
            case ast.Name(id=name):
                scope[name] = values
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                scope[f"self.{name}"] = values
                self.learn_attribute(name, values)
            case _:
                _forget(target, scope)

    def learn_attribute(self, name: str, values: Values) -> None:
        key = (self.class_name, name)
        self.learned.attributes[key] = self.learned.attributes.get(key, frozenset()) | values

    # Expressions

    def expressions(self, nodes: Iterable[ast.AST], scope: Scope) -> None:
        """Record the calls inside, and what they hand to private functions."""
        inside = list(itertools.chain.from_iterable(map(ast.walk, nodes)))
        calls = [node for node in inside if isinstance(node, ast.Call)]
        for node in calls:
            self.call(node, scope)
            self.learn_arguments(node, scope)
        called = {id(node.func) for node in calls}
        for node in inside:
            if isinstance(node, ast.Attribute) and node.attr in API_SENDERS and id(node) not in called:
                self.record(node, ["?"], [None], node)  # handed on, to be called elsewhere

    def call(self, node: ast.Call, scope: Scope) -> None:
        name = _called_name(node)
        if name in API_SENDERS:
            path_name, method = API_SENDERS[name]
            given = _given(node, path_name, 1)
            methods = [method] if method else self.methods(_given(node, "req_type", 0), scope)
            paths = [_api_path(text) for text in sorted(self.text(given, scope))]
        elif _is_url_sender(node):
            method = URL_SENDERS[name]
            given = _given(node, "url", 0 if method else 1)
            methods = [method] if method else self.methods(_given(node, "method", 0), scope)
            paths = [_gate_path(text) for text in sorted(self.text(given, scope))]
        else:
            return
        self.record(node, methods, paths, given)

    def record(
        self, node: ast.expr, methods: Sequence[str], paths: Sequence[str | None], given: ast.expr | None
    ) -> None:
        module = self.file.removesuffix(".py").replace("/", ".")
        site = f"{module}.{self.functions[0]}" if self.functions else module
        expression = ast.unparse(given) if given else ""
        for method, path in itertools.product(methods, paths):
            self.calls.add(Call(site, method, path, self.file, node.lineno, expression))

    def methods(self, node: ast.expr | None, scope: Scope) -> list[str]:
        names = sorted({text.upper() for text in self.text(node, scope)})
        return [name if name in METHODS else "?" for name in names]

    def learn_arguments(self, node: ast.Call, scope: Scope) -> None:
        function = self.private.get(_called_name(node))
        if function is None:
            return
        parameters = _parameters(function)
        if isinstance(node.func, ast.Attribute) and parameters[:1] in (["self"], ["cls"]):
            parameters = parameters[1:]
        defaults = _defaults(function)
        for position, parameter in enumerate(parameters):
            given = _given(node, parameter, position) or defaults.get(parameter)
            key = (function.name, parameter)
            values = self.text(given, scope)
            self.learned.arguments[key] = self.learned.arguments.get(key, frozenset()) | values

    def text(self, node: ast.expr | None, scope: Scope) -> Values:
        """The texts an expression may have, with UNKNOWN where only a run could tell."""
        found = NOTHING_KNOWN
        match node:
            case ast.Constant(value=str(text)):
                found = frozenset({text})
            case ast.Name(id=name):
                found = scope.get(name, NOTHING_KNOWN)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                found = scope.get(f"self.{name}", NOTHING_KNOWN)
            case ast.IfExp(body=body, orelse=orelse):
                found = self.text(body, scope) | self.text(orelse, scope)
            case ast.JoinedStr(values=parts):
                found = _joined([self.text(part, scope) for part in parts])
            case ast.FormattedValue(value=value):
                found = self.text(value, scope)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                found = _joined([self.text(left, scope), self.text(right, scope)])
            case ast.BinOp(left=left, op=ast.Mod(), right=right):
                given = right.elts if isinstance(right, ast.Tuple) else [right]
                found = _percent(self.text(left, scope), [self.text(value, scope) for value in given])
            case ast.Call():
                found = self.answer(node, scope)
            case _:
                pass
        return found

    def answer(self, node: ast.Call, scope: Scope) -> Values:
        match node.func:
            case ast.Attribute(value=template, attr="format"):
                given = {str(index): self.text(value, scope) for index, value in enumerate(node.args)}
                given |= {keyword.arg or "": self.text(keyword.value, scope) for keyword in node.keywords}
                return _formatted(self.text(template, scope), given)
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in PASSING_ON and node.args:
                return _joined([self.text(node.args[0], scope), frozenset({PASSING_ON[name]})])
            case _:
                return NOTHING_KNOWN


def _api_path(text: str) -> str | None:
    path = _template(text)
    return path and API_PREFIX + path


def _gate_path(text: str) -> str | None:
    """The path of a URL that starts with a host only a run could tell."""
    return _template(text[1:]) if text.startswith(UNKNOWN) else None


def _template(text: str) -> str | None:
    path = text.partition("?")[0]
    if not path.startswith("/") or "{" in path:
        return None
    return "/".join("{}" if UNKNOWN in segment else segment for segment in path.split("/"))


def _called_name(node: ast.Call) -> str:
    match node.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def _is_url_sender(node: ast.Call) -> bool:
    """Whether this is `requests.get(...)`, `some_session.post(...)` and the like."""
    match node.func:
        case ast.Attribute(value=owner, attr=name) if name in URL_SENDERS:
            text = ast.unparse(owner)
            return text in URL_LIBRARIES or "session" in text.rpartition(".")[2].lower()
        case _:
            return False


def _is_private(name: str) -> bool:
    return name.startswith("__") and not name.endswith("__")


def _given(node: ast.Call, name: str, position: int) -> ast.expr | None:
    """What a call gives for the parameter `name`, None when it gives nothing."""
    for keyword in node.keywords:
        if keyword.arg == name:
            return keyword.value
    return node.args[position] if position < len(node.args) else None


def _parameters(node: Function) -> list[str]:
    return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def _defaults(node: Function) -> dict[str, ast.expr]:
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    found = dict(zip(reversed(positional), reversed(node.args.defaults), strict=False))
    keyword_only = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return found | {argument.arg: default for argument, default in keyword_only if default}


def _either(*scopes: Scope | None) -> Scope | None:
    """What is known where several ways meet; None is a way that ends before."""
    reached = [scope for scope in scopes if scope is not None]
    if not reached:
        return None
    names = set().union(*reached)
    return {name: frozenset().union(*(scope.get(name, frozenset()) for scope in reached)) for name in names}


def _forget(target: ast.expr | None, scope: Scope) -> None:
    for node in ast.walk(target) if target else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            scope[node.id] = NOTHING_KNOWN


def _joined(parts: Sequence[Values]) -> Values:
    return _at_most("".join(texts) for texts in itertools.product(*map(sorted, parts)))


def _at_most(texts: Iterator[str]) -> Values:
    found = frozenset(itertools.islice(texts, MOST_VALUES + 1))
    return found if len(found) <= MOST_VALUES else NOTHING_KNOWN


def _formatted(templates: Values, given: Mapping[str, Values]) -> Values:
    found: set[str] = set()
    for template in templates:
        count = itertools.count()
        parts: list[Values] = []
        for literal, name, _, _ in string.Formatter().parse(template):
            parts.append(frozenset({literal}))
            if name is not None:
                root = re.split(r"[.\[]", name)[0]
                plain = root == name
                key = root or str(next(count))
                parts.append(given.get(key, NOTHING_KNOWN) if plain else NOTHING_KNOWN)
        found |= _joined(parts)
    return _at_most(iter(found))


def _percent(templates: Values, given: Sequence[Values]) -> Values:
    found: set[str] = set()
    for template in templates:
        left = iter(given)
        parts: list[Values] = []
        end = 0
        for mark in PERCENT.finditer(template):
            parts.append(frozenset({template[end : mark.start()]}))
            end = mark.end()
            if mark[0] == "%%":
                parts.append(frozenset({"%"}))
            else:
                parts.append(NOTHING_KNOWN if "(" in mark[0] else next(left, NOTHING_KNOWN))
        parts.append(frozenset({template[end:]}))
        found |= _joined(parts)
    return _at_most(iter(found))
