"""Runs tests against a program that lives in another process.

The tests are the data's, so this process can be believed; the program is the model's and never runs here. A name that the
tests do not define is asked for over there. Plain values (numbers, text, lists, dicts, …) come back as data and are
compared here. Other objects stay there: what stands here in their place can be called, and its parts can be looked at, but
nothing of what the tests expect is ever sent to it, and nothing that it says of itself is taken for a comparison.
"""
import ast
import builtins
import decimal
import fractions
import importlib
import json
import os
import sys

LINE = 1 << 24
source, sink, report = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(2), "w")
null = os.open(os.devnull, os.O_RDWR)
os.dup2(null, 0), os.dup2(null, 1), os.dup2(null, 2)

STANDARD = getattr(sys, "stdlib_module_names", frozenset())
PLAIN = (str, bytes, int, float, complex, list, tuple, set, frozenset, dict)
# Methods that a test calls on what it takes for a plain value.
PLAIN_METHODS = {name for kind in PLAIN for name in dir(kind) if not name.startswith("_")}


class Verdict(BaseException):
    """An end of the test that nothing in it can catch for good: see `outcome`."""


class Failed(Verdict):
    """The program ended, does not keep to the form, or gives an object where the test computes with a value."""


class Unsupported(Verdict):
    """The test needs what cannot cross, or what only the program could decide."""


class State:
    """What has been seen in the test that runs."""

    def __init__(self):
        self.gone = None  # why the program answers no more; never forgotten
        self.expects_stop = False
        # The modules that the test uses without importing them.
        self.modules = frozenset()
        self.begin(True)

    def begin(self, writes_back):
        self.verdict = None
        self.writes_back = writes_back
        # The program has been handed values by other ways than calls of functions.
        self.leaks = False
        # An argument came back changed, beside a result.
        self.ambiguous = False


state = State()


def end(kind, reason):
    state.verdict = state.verdict or (kind, reason)
    raise kind(reason)


def ask_for_value(reason):
    end(Failed, f"the program gives an object where the test needs a plain value: {reason}")


class Remote:
    """Something of the program's that is not plain.

    `_kind` is `class` for a name with a capital, `instance` for what such a class makes, `plain_method` for what a test
    calls on a plain value, and `value` for all else.
    """

    def __init__(self, index, kind):
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_kind", kind)

    def __getattr__(self, name):
        value = ask("get", self, name)
        if isinstance(value, Remote) and self._kind != "instance" and name in PLAIN_METHODS:
            object.__setattr__(value, "_kind", "plain_method")
        return value

    def __setattr__(self, name, value):
        state.leaks = True
        ask("set", self, name, value)

    def __call__(self, *args, **named):
        if self._kind == "plain_method":
            ask_for_value("a method of plain values is called")
        if args or named:
            state.leaks = state.leaks or self._kind not in ("function", "class")
        made = ask("call", self, *args, **named)
        if isinstance(made, Remote) and self._kind == "class":
            object.__setattr__(made, "_kind", "instance")
        return made

    def __eq__(self, other):
        if isinstance(other, Remote):
            if self._index == other._index:
                return True
            end(Unsupported, "two objects of the program are compared, which only it could decide")
        return False

    def __ne__(self, other):
        return not self == other

    def __contains__(self, item):
        if self._kind != "instance":
            ask_for_value("something is looked for in it")
        state.leaks = True
        return ask("contains", self, item)

    def __getitem__(self, key):
        if not isinstance(key, (int, str, tuple)) and self._kind != "instance":
            ask_for_value("a part of it is taken")
        return ask("getitem", self, key)

    def __setitem__(self, key, value):
        state.leaks = True
        ask("setitem", self, key, value)

    def __delitem__(self, key):
        state.leaks = True
        ask("delitem", self, key)


def look(name):
    """Something about an object alone: its result is compared here, and the program learns nothing."""
    return lambda self, *args: ask(name, self, *args)


def between(name):
    """An operator, which the program may apply to two of its own objects, but not to what the tests expect."""

    def apply(self, other):
        if not isinstance(other, Remote):
            ask_for_value(f"`{name}` with a value of the test's")
        return ask(name, self, other)

    return apply


def ordered(self, other):
    if isinstance(other, Remote):
        end(Unsupported, "two objects of the program are compared, which only it could decide")
    ask_for_value("it is compared")


for name in "len iter next str repr bool hash abs round".split():
    setattr(Remote, f"__{name}__", look(name))
for name in "add sub mul truediv floordiv mod pow".split():
    setattr(Remote, f"__{name}__", between(name))
    setattr(Remote, f"__r{name}__", lambda self, other: ask_for_value("it is computed with"))
for name in "lt le gt ge".split():
    setattr(Remote, f"__{name}__", ordered)


class NotANumber(float):
    """A NaN of the program's: every comparison by size is false, so that `not abs(x - 7) > e` would hold of it."""

    def __new__(cls):
        return float.__new__(cls, "nan")

    __hash__ = float.__hash__


for name in "add sub mul truediv floordiv mod pow radd rsub rmul rtruediv rfloordiv rmod rpow".split():
    setattr(NotANumber, f"__{name}__", lambda self, *_: self)
for name in "neg pos abs round".split():
    setattr(NotANumber, f"__{name}__", lambda self, *_: self)
for name in "lt le gt ge".split():
    setattr(NotANumber, f"__{name}__", lambda self, _: end(Failed, "the program gives NaN where the test compares by size"))


def encode(value):
    if isinstance(value, Remote):
        return {"object": value._index}
    if isinstance(value, NotANumber):
        return float("nan")
    if value is None or type(value) in (bool, str, int, float):
        return value
    kind = type(value).__name__
    if type(value) in (list, tuple, set, frozenset):
        return {kind: [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, (fractions.Fraction, decimal.Decimal)):
        return {kind: str(value)}
    if hasattr(value, "__next__"):
        return {"iterator": [encode(item) for item in value]}
    end(Unsupported, f"an argument of type {kind}")


def decode(value):
    if isinstance(value, float) and value != value:
        return NotANumber()
    if not isinstance(value, dict):
        return value if not isinstance(value, list) else wrong_form()
    (kind, inside), = value.items()
    if kind == "object":
        return Remote(inside, "value")
    if kind == "dict":
        return {decode(key): decode(item) for key, item in inside}
    if kind == "bytes":
        return bytes.fromhex(inside)
    if kind == "complex":
        return complex(*inside)
    if kind in ("Fraction", "Decimal"):
        return {"Fraction": fractions.Fraction, "Decimal": decimal.Decimal}[kind](inside)
    if kind == "range":
        return range(*inside)
    kinds = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter}
    return kinds[kind]([decode(item) for item in inside])


def wrong_form():
    raise ValueError("not of the form")


def receive():
    try:
        line = source.readline(LINE)
        if not line.endswith(b"\n"):
            raise EOFError
        reply = json.loads(line)
        if "raised" in reply:
            return reply, None
        return reply, decode(reply["value"])
    except BaseException:
        state.gone = "the program ended or gave no answer"
        raise Failed(state.gone) from None


def ask(do, *args, **named):
    if state.gone:
        raise Failed(state.gone)
    request = {"do": do, "args": [encode(arg) for arg in args], "named": {k: encode(v) for k, v in named.items()}}
    try:
        sink.write(json.dumps(request).encode() + b"\n")
        sink.flush()
    except OSError:
        state.gone = "the program ended"
        raise Failed(state.gone) from None
    reply, value = receive()
    if "raised" in reply:
        raise remote_error(str(reply["raised"]), str(reply.get("text")))
    for arg, after in zip(args, reply.get("after", [])):
        change_in_place(arg, after, value)
    return value


def remote_error(name, text):
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = type(name if name.isidentifier() else "Error", (Exception,), {})
    # It would end a loop of the tests' own (`all(map(…))`) early, and quietly.
    if issubclass(kind, (StopIteration, StopAsyncIteration)) and not state.expects_stop:
        return RuntimeError(f"{name}: {text}")
    try:
        return kind(text)
    except TypeError:
        return Exception(f"{name}: {text}")


def change_in_place(arg, after, result):
    if after is None or type(arg) not in (list, set, dict):
        return
    value = decode(after)
    if type(value) is not type(arg) or value == arg:
        return
    if result is not None:
        # Either a function that also changes its argument, or one that spoils what the test compares with.
        state.ambiguous = True
        if not state.writes_back:
            return
    arg.clear()
    arg.extend(value) if isinstance(arg, list) else arg.update(value)


class Names(dict):
    """The tests' own names, then Python's, then the program's."""

    def __missing__(self, name):
        if name not in entry_points:
            if hasattr(builtins, name):
                raise KeyError(name)
            if name in state.modules:
                return importlib.import_module(name)
        value = ask("name", name)
        if isinstance(value, Remote):
            object.__setattr__(value, "_kind", "class" if name[:1].isupper() else "function")
        return value


class Form(ast.NodeVisitor):
    """What can be told of a test without running it."""

    def __init__(self, tree):
        self.bound, self.loaded = set(), set()
        self.roots, self.asserts, self.bare = set(), False, []
        self.visit(tree)
        free = self.loaded - self.bound
        # `queue.Queue` is the module's, while `queue()` calls a function of the program's.
        self.modules = free & self.roots & (STANDARD - entry_points)
        self.unknown = {name for name in free - self.modules if not hasattr(builtins, name)} | (free & entry_points)

    def visit_Name(self, node):
        (self.loaded if isinstance(node.ctx, ast.Load) else self.bound).add(node.id)

    def visit_arg(self, node):
        self.bound.add(node.arg)
        self.generic_visit(node)

    def visit_FunctionDef(self, node):
        self.bound.add(node.name)
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef

    def visit_Import(self, node):
        for alias in node.names:
            self.bound.add((alias.asname or alias.name).split(".")[0])

    visit_ImportFrom = visit_Import

    def visit_ExceptHandler(self, node):
        self.bound.add(node.name) if node.name else None
        self.generic_visit(node)

    def visit_Attribute(self, node):
        if isinstance(node.value, ast.Name):
            self.roots.add(node.value.id)
        if node.attr.startswith("assert"):
            self.asserts = True
        self.generic_visit(node)

    def visit_Assert(self, node):
        self.asserts = True
        call = node.test
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            self.bare.append((call.func.id, {arg.id for arg in call.args if isinstance(arg, ast.Name)}))
        self.generic_visit(node)

    def visit_Raise(self, node):
        self.asserts = True
        self.generic_visit(node)

    def visit_MatchAs(self, node):
        self.bound.add(node.name) if node.name else None
        self.generic_visit(node)

    def fault(self):
        """Why no program could be judged by this test, if none could."""
        if not self.asserts:
            return "it asserts nothing by itself"
        for name in sorted(self.roots & self.unknown):
            if not name[:1].isupper() and name not in entry_points:
                return f"`{name}` is not defined by the test: were it the program's, the program would decide"
        for name, args in self.bare:
            if name in self.unknown and args & self.unknown - {name}:
                return f"`{name}` is not defined by the test, and decides alone"
        return None


def outcome(test):
    try:
        code = compile(test, "test", "exec")
        form = Form(ast.parse(test))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return "broken", f"is not Python: {error}"
    if form.fault():
        return "broken", f"cannot be decided: {form.fault()}"
    state.expects_stop = "StopIteration" in form.loaded
    state.modules = form.modules
    verdict = run(code, True)
    if verdict[0] == "passed" and state.ambiguous:
        # It must hold as well where what the program did to its arguments is not seen.
        leaks = state.leaks
        if run(code, False)[0] != "passed":
            return "unsupported", "an argument that the program changed is compared with"
        state.leaks = state.leaks or leaks
    return verdict


def run(code, writes_back):
    state.begin(writes_back)
    try:
        exec(code, Names(__name__="test"))
        note = None
    except Verdict:
        note = None
    except BaseException as error:
        note = f"{type(error).__name__}: {error}"
    # A test that catches everything has caught these, too.
    if state.gone:
        return "failed", state.gone
    if state.verdict:
        kind, reason = state.verdict
        return ("failed" if kind is Failed else "unsupported"), reason
    return ("failed", note) if note else ("passed", "")


task = json.loads(source.readline())
entry_points = set(task["entry_points"])
print(json.dumps({"ready": True}), file=report, flush=True)
try:
    loaded, _ = receive()
    failure = f"{loaded['raised']}: {loaded.get('text')}" if "raised" in loaded else None
except BaseException as error:
    failure = str(error)
for test in task["tests"]:
    result, note = ("failed", failure) if failure else outcome(test)
    print(json.dumps({"outcome": result, "note": str(note)[:200]}), file=report, flush=True)
    if state.leaks:
        # What the program was handed here it could use against the next test, which is given a fresh one.
        print(json.dumps({"fresh": True}), file=report, flush=True)
        break
