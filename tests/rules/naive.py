"""A naive interpreter of rules: the oracle for the compiled matchers.

It walks the syntax tree as parsed (loops and views written out, nothing else expanded), tries every order of
commutative operands, and evaluates guards and results directly. It shares nothing with the generator but the
parser and the op table, is slow, and supports what the rules of `test_oracle.py` need.
"""

from __future__ import annotations

from tinycore.ir import UOp, dtypes
from tinycore.ir.ops import TABLE, ops
from tinycore.rules import syntax as s
from tinycore.rules.expand import OP_CLASSES, rules_of
from tinycore.rules.parse import parse

ARITHMETIC = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "//": lambda a, b: a // b,
    "%": lambda a, b: a % b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b, "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
    "in": lambda a, b: a in b,
    "/": lambda a, b: a / b, "<<": lambda a, b: a << b, ">>": lambda a, b: a >> b,
}  # fmt: skip


class Number:
    """A captured constant: a value, and the node where a node is wanted."""

    def __init__(self, node):
        self.node, self.value = node, node.value


def load(text):
    """The rules of a text, in order."""
    file = parse(text)
    return [rule for group in file.groups for rule in rules_of(file, group)]


def results(rules, node):
    """What the first rule that matches may answer: a result for every way to match; else empty."""
    for rule in rules:
        found = []
        for env in match(rule.pattern, node, {}):
            for result in conclude(rule, env, node):
                if result is not node and result not in found:
                    found.append(result)
        if found:
            return rule.name, found
    return None, []


def conclude(rule, env, root):
    env = dict(env)
    for clause in rule.clauses:
        if isinstance(clause, s.Guard):
            if not value(clause.condition, env):
                return
        else:
            env[clause.name] = value(clause.value, env)
    for binding in rule.block:
        env[binding.name] = (
            node_of(binding.value, env, None) if has_node(binding.value, env) else value(binding.value, env)
        )
    yield node_of(rule.result[0], env, root)


# --- matching ---------------------------------------------------------------------------------------------


def typed(type_, node, env):
    """Environments in which the node has the type."""
    if type_ is None:
        return [env]
    if type_ in dtypes.CLASSES:
        return [env] if node.dtype in dtypes.CLASSES[type_] else []
    if type_[0].islower():
        return [env] if node.dtype.name == type_ else []
    if type_ in env:
        return [env] if env[type_] is node.dtype else []
    return [{**env, type_: node.dtype}]


def bind(name, new, env, same):
    if name is None:
        return [env]
    if name in env:
        return [env] if same(env[name], new) else []
    return [{**env, name: new}]


def match(pattern, node, env):
    if isinstance(pattern, s.Capture):
        for inner in bind(pattern.name, node, env, lambda a, b: a is b):
            yield from match(pattern.pattern, node, inner)
    elif isinstance(pattern, s.Variable):
        for inner in typed(pattern.type, node, env):
            yield from bind(pattern.name, node, inner, lambda a, b: a is b)
    elif isinstance(pattern, s.Constant):
        if node.op is ops.CONST:
            for inner in typed(pattern.type, node, env):
                yield from bind(
                    pattern.name,
                    Number(node),
                    inner,
                    lambda a, b: a.node.dtype is b.node.dtype and a.node.arg[0] == b.node.arg[0],
                )
    elif isinstance(pattern, s.Literal):
        if node.op is ops.CONST and literal(pattern.value, node):
            yield env
    elif isinstance(pattern, s.Apply):
        yield from apply(pattern, node, env)


def literal(wanted, node):
    if isinstance(wanted, bool):
        return node.dtype.kind == "bool" and bool(node.value) is wanted
    if node.dtype.is_float:
        return node.arg[0] == node.dtype.to_bits(wanted)
    return node.value == wanted


def apply(pattern, node, env):
    names = [op for name in pattern.ops for op in OP_CLASSES.get(name, (name,))]
    if node.op.name not in names:
        return
    if pattern.attributes is not None:
        kept = [name for name in node.op.attributes if name != "dtype"]
        for name, attribute in zip(node.op.attributes, pattern.attributes, strict=True):
            found = (
                node.dtype if name == "dtype" else node.arg if len(kept) == 1 else node.arg[kept.index(name)]
            )
            if attribute.equal is not None:
                if value(attribute.equal, env) != found:
                    return
            elif attribute.name is not None:
                env = {**env, attribute.name: found}
    orders = [node.src]
    if node.op.commutative and not pattern.ordered and len(node.src) == 2:
        orders.append(node.src[::-1])
    for src in orders:
        yield from sequence(pattern.operands, src, env)


def sequence(patterns, nodes, env):
    if not patterns:
        if not nodes:
            yield env
        return
    first, rest = patterns[0], patterns[1:]
    if isinstance(first, s.Rest):
        for count in range(len(nodes) + 1):
            for inner in bind(first.name, nodes[:count], env, lambda a, b: a == b):
                yield from sequence(rest, nodes[count:], inner)
    elif nodes:
        for inner in match(first, nodes[0], env):
            yield from sequence(rest, nodes[1:], inner)


# --- evaluating -------------------------------------------------------------------------------------------


def has_node(e, env):
    if isinstance(e, s.Build):
        return True
    if isinstance(e, s.Name):
        return isinstance(env.get(e.name), UOp)
    if isinstance(e, (s.Binary, s.Logical)):
        return has_node(e.left, env) or has_node(e.right, env)
    if isinstance(e, s.Conditional):
        return has_node(e.yes, env) or has_node(e.no, env)
    return isinstance(e, s.Unary) and has_node(e.operand, env)


def value(e, env):
    match e:
        case s.Number(number) | s.Text(number):
            return number
        case s.Name(name):
            found = env.get(name) if name in env else TABLE.get(name)
            if found is None:
                found = dtypes.by_name(name)
            return found.value if isinstance(found, Number) else found
        case s.Binary(operator, left, right):
            a, b = value(left, env), value(right, env)
            if isinstance(a, UOp) or isinstance(b, UOp):
                return (a is b) == (operator == "==")
            return ARITHMETIC[operator](a, b)
        case s.Logical(operator, left, right):
            return (
                (value(left, env) and value(right, env))
                if operator == "and"
                else (value(left, env) or value(right, env))
            )
        case s.Unary(operator, operand):
            return not value(operand, env) if operator == "not" else -value(operand, env)
        case s.Attribute(inner, name):
            if isinstance(inner, s.Name) and isinstance(env.get(inner.name), Number):
                return getattr(env[inner.name].node, name)
            return getattr(value(inner, env), name)
        case s.Sequence(items):
            return tuple(value(item, env) for item in items)
        case s.Item(inner, index):
            return value(inner, env)[value(index, env)]
        case s.Call(name, operands):
            functions = {"len": len, "lossless": dtypes.lossless, "min": min, "max": max}
            return functions[name](*[value(operand, env) for operand in operands])
        case s.Comprehension(item, (loop,)):
            return [
                value(item, {**env, loop.target: part})
                for part in value(loop.items, env)
                if loop.condition is None or value(loop.condition, {**env, loop.target: part})
            ]
        case s.Conditional(yes, condition, no):
            return value(yes if value(condition, env) else no, env)
    raise NotImplementedError(e)


def node_of(e, env, like):
    """The node of an expression; `like` has the dtype and shape that the place expects."""
    if isinstance(e, s.Name) and isinstance(env.get(e.name), Number):
        found = env[e.name].node
        return (
            found
            if like is None
            else UOp(
                ops.CONST,
                like.dtype,
                (),
                (found.arg[0] if like.dtype is found.dtype else like.dtype.to_bits(found.value), like.shape),
            )
        )
    if isinstance(e, s.Binary) and has_node(e, env):
        operands = (e.right, e.left) if e.operator in (">", ">=") else (e.left, e.right)
        return build(TABLE[s.INFIX[e.operator]], (), operands, env, like)
    if isinstance(e, s.Unary) and has_node(e, env):
        return build(ops.NEG, (), (e.operand,), env, like)
    if isinstance(e, s.Build):
        return build(TABLE[e.op], e.attributes or (), e.operands, env, like)
    if isinstance(e, s.Conditional) and has_node(e, env):
        return node_of(e.yes if value(e.condition, env) else e.no, env, like)
    found = value(e, env)
    return found if isinstance(found, UOp) else UOp.const(like.dtype, found, like.shape)


def build(op, attributes, operands, env, like):
    if op is ops.SINK:
        parts = [
            value(o.value, env) if isinstance(o, s.Splat) else (node_of(o, env, None),) for o in operands
        ]
        return UOp(op, dtypes.void, tuple(part for group in parts for part in group))
    values = [value(attribute, env) for attribute in attributes]
    kept = [v for name, v in zip(op.attributes, values, strict=True) if name != "dtype"]
    arg = None if not kept else kept[0] if len(kept) == 1 else tuple(kept)
    variable = [spec.split(":")[0] == "T" for spec in op.operands]
    constants = [isinstance(o, s.Name) and isinstance(env.get(o.name), Number) for o in operands]
    model = next(
        (
            node_of(o, env, None)
            for o, same in zip(operands, variable, strict=True)
            if same and has_node(o, env)
        ),
        None,
    )
    if model is None:
        model = next(
            (
                env[o.name].node
                for o, c, same in zip(operands, constants, variable, strict=True)
                if c and same
            ),
            None,
        )
    if model is None and op.dtype == "T":
        model = like
    anything = (
        model
        if model is not None
        else next((node_of(o, env, None) for o in operands if has_node(o, env)), like)
    )
    src = []
    for o, same in zip(operands, variable, strict=True):
        wanted = (
            (model if same else UOp.const(dtypes.bool_, True, anything.shape)) if op.elementwise else None
        )
        if op in (ops.CAST, ops.BITCAST):
            wanted = None
        src.append(node_of(o, env, wanted) if wanted is not None else node_of(o, env, None))
    if "dtype" in op.attributes:
        dtype = values[op.attributes.index("dtype")]
    else:
        dtype = dtypes.bool_ if op.dtype == "bool" else src[variable.index(True)].dtype
    if all(part.op is ops.CONST for part in src) and not any(has_node(o, env) for o in operands):
        from tinycore.rules.fold import fold  # folding has tests of its own

        return fold(op, dtype, tuple(src))
    return UOp(op, dtype, tuple(src), arg)
