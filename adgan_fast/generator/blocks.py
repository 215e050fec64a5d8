"""Blocks of a captured graph, such as those under torch.no_grad, put in line."""

from __future__ import annotations

import itertools
import operator

import torch
from torch import fx

from .program import Unlowered
from .stateless import given_to, schema_of, stopped

GRAD_MODE, AUTOCAST = "wrap_with_set_grad_enabled", "wrap_with_autocast"


def put_in_line(exported: torch.export.ExportedProgram) -> None:
    """What the blocks of a program compute as nodes of its graph, detached where it is made without gradients.

    A decomposition of the program does so as well, and forgets that no gradient passes. Raises Unlowered for what else
    that would happen to: writes without gradients, autocast, calls of other graphs.
    """
    graph = exported.graph
    _put_in_line(exported.graph_module)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.detach_.default:
            _put_aside(graph, node)
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise Unlowered(f"op {node.target} is not known to the fast engines")
    _refuse_writes(graph)
    exported.graph_module.recompile()


def _put_aside(graph: fx.Graph, node: fx.Node) -> None:
    """In place of x.detach_() a detached x, which is what reads x from there on."""
    (x,) = node.args
    assert isinstance(x, fx.Node)
    later = set(itertools.takewhile(lambda one: one is not node, reversed(graph.nodes)))
    with graph.inserting_before(node):
        made = x if x.target is torch.ops.aten.lift_fresh_copy.default else _detached(graph, x)  # of a literal: none
    node.replace_all_uses_with(made)
    if made is not x:
        x.replace_all_uses_with(made, delete_user_cb=later.__contains__)
    graph.erase_node(node)


def _refuse_writes(graph: fx.Graph) -> None:
    """Unlowered where a tensor is written into by way of a detached one.

    A write into x.detach() changes x, and leaves it its gradient, which the functional form would take from it.
    """
    cut: set[fx.Node] = set()  # what shares memory with a detached tensor, and was made of it
    for node in graph.nodes:
        known = schema_of(node)
        through = [
            one for one, value in given_to(node) if isinstance(value, fx.Node) and value in cut and one.alias_info
        ]
        if any(one.alias_info.is_write for one in through):
            raise Unlowered(f"{node.target} writes into a detached tensor")
        passes = known is None or "dropout" in known.name  # a piece of a list; the same tensor, in eval mode
        through += [one for one in node.all_input_nodes if passes and one in cut]
        if through or node.target is torch.ops.aten.detach.default:
            cut.add(node)


def _put_in_line(module: fx.GraphModule) -> None:
    graph = module.graph
    for node in list(graph.nodes):
        name = node.target.name() if isinstance(node.target, torch._ops.HigherOrderOperator) else ""
        if name == GRAD_MODE:
            keeps, called, given = bool(node.args[0]), node.args[1], node.args[2:]
        elif name == AUTOCAST and not node.args[2]:
            keeps, called, given = True, node.args[4], node.args[5:]
        else:
            continue
        inner = module.get_submodule(str(called.target))
        assert isinstance(inner, fx.GraphModule)
        _put_in_line(inner)
        values = dict(zip(inner.graph.find_nodes(op="placeholder"), given, strict=True))
        with graph.inserting_before(node):
            for step in inner.graph.nodes:
                if not keeps and mutates(step):  # what it writes to may be read outside of the block
                    raise Unlowered(f"{step.target} writes into a tensor under torch.no_grad")
                if step.op == "call_function":
                    values[step] = graph.node_copy(step, values.__getitem__)
            (output,) = inner.graph.find_nodes(op="output")
            made = [values[value] for value in output.args[0]]
            if not keeps:
                made = [_detached(graph, value) for value in made]
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(made[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
        if not called.users:
            graph.erase_node(called)


def mutates(node: fx.Node) -> bool:
    """Whether a node writes into one of its inputs."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _detached(graph: fx.Graph, value: fx.Node) -> fx.Node:
    node = stopped(graph, value)
    node.meta = dict(value.meta)
    return node
