"""A model as TensorBoard's graph: the operations that gradients pass through, grouped by module."""

from __future__ import annotations

from typing import Any

from kilograd.autograd.driver import Node, Pick
from kilograd.autograd.modes import ModeContext
from kilograd.nn import Module
from kilograd.tensor import Tensor
from kilograd.utils.undisturbed import undisturbed


def graph_of(model: Module, inputs: Any) -> Any:
    """The graph of one call, as a ``GraphDef`` message.

    Hooks around each module say which operations are its own: those that are new when its call ends, less
    those that were new when a call inside of it began, which are the outer module's.

    Args:
        model: the module; it is left as it was.
        inputs: its input, or a tuple of them.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: no gradient passes through it, so there is nothing to follow.
    """
    if not isinstance(model, Module):
        raise TypeError(f"add_graph: expected a module, got {type(model).__name__}")
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    fresh = tuple(
        a.detach().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a
        for a in args
    )
    owners: dict[Node, str] = {}
    inside: list[str] = [type(model).__name__]
    handles = []

    def enter(path: str) -> Any:
        def hook(module: Module, args: Any) -> None:
            _claim(args, inside[-1], owners)
            inside.append(path)

        return hook

    def leave(module: Module, args: Any, output: Any) -> None:
        _claim(output, inside.pop(), owners)

    try:
        for name, module in model.named_modules():
            path = "/".join([inside[0], *name.split(".")]) if name else inside[0]
            handles.append(module.register_forward_pre_hook(enter(path)))
            handles.append(module.register_forward_hook(leave))
        with undisturbed(model), ModeContext(grad=True, inference=False):
            output = model(*fresh)
    finally:
        for handle in handles:
            handle.remove()
    if not owners:
        raise ValueError(
            "add_graph: no gradient passes through the model: it has no parameter that requires grad, "
            "and no input of floats"
        )
    leaves = {
        id(p): f"{inside[0]}/{name.replace('.', '/')}" for name, p in model.named_parameters()
    }
    leaves |= {id(a): f"input/{i}" for i, a in enumerate(fresh) if isinstance(a, Tensor)}
    return _message(owners, leaves, _tensors(output))


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [t for part in tree for t in _tensors(part)] if isinstance(tree, (tuple, list)) else []


def _claim(tree: Any, owner: str, owners: dict[Node, str]) -> None:
    """Whatever led to these tensors and has no owner yet is this module's."""
    waiting: list[Any] = [t.grad_fn for t in _tensors(tree)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Node) and node not in owners:
            owners[node] = owner
            waiting += node.inputs


def _message(owners: dict[Node, str], leaves: dict[int, str], outputs: list[Tensor]) -> Any:
    from tensorboardX.proto.attr_value_pb2 import AttrValue
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboardX.proto.versions_pb2 import VersionDef

    nodes: list[Any] = []
    names: dict[Any, str] = {}
    taken: set[str] = set()

    def add(key: Any, name: str, op: str, shapes: Any, inputs: Any = ()) -> str:
        unique, k = name, 0
        while unique in taken:
            k += 1
            unique = f"{name}_{k}"
        taken.add(unique)
        names[key] = unique
        dims = [
            TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in shape]) for shape in shapes
        ]
        shape = AttrValue(list=AttrValue.ListValue(shape=dims))
        nodes.append(NodeDef(name=unique, op=op, input=inputs, attr={"_output_shapes": shape}))
        return unique

    def source(edge: Any) -> str:
        """The name of what an input comes from; of one of several outputs, with its number."""
        if isinstance(edge, Pick):
            return f"{source(edge.inputs[0])}:{edge.index}"
        key = edge if isinstance(edge, Node) else id(edge)
        if key in names:
            return names[key]
        name = leaves.get(id(edge), "constant")
        return add(
            key, name, "Placeholder" if name.startswith("input/") else "Variable", [edge.shape]
        )

    for node in sorted(owners, key=lambda node: node.order):
        if not isinstance(node, Pick):
            name = node.op.name if hasattr(node, "op") else node.name()
            several = bool(node.shape) and not isinstance(node.shape[0], int)
            shapes = node.shape if several else [node.shape]
            add(node, f"{owners[node]}/{name}", name, shapes, [source(e) for e in node.inputs if e is not None])  # fmt: skip
    for k, tensor in enumerate(outputs):
        if tensor.grad_fn is not None:
            add(("output", k), f"output/{k}", "Output", [tensor.shape], [source(tensor.grad_fn)])
    return GraphDef(node=nodes, versions=VersionDef(producer=22))
