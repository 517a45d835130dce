"""The class of a sparse Linen module: its dense class, whose layers run sparse where the plan says so."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

from flax import linen as nn

from sparsejax._checks import fail
from sparsejax.nn.linen._plan import Path, Plan, StoredLayer, at, with_patterns, without_patterns
from sparsejax.nn.linen._record import call_arguments
from sparsejax.nn.linen._twin import kind_of
from sparsejax.pattern import SparsityPattern

_IN_SETUP: ContextVar[bool] = ContextVar("_IN_SETUP", default=False)


_CLASSES: WeakValueDictionary[tuple[type[nn.Module], Plan], type[nn.Module]] = WeakValueDictionary()


def sparse_module(module: nn.Module, plan: Plan) -> nn.Module:
    """Return a module with the fields of ``module`` whose layers run as the plan says."""
    return _restore(type(module), _fields(module), plan)


def dense_module(module: nn.Module) -> nn.Module:
    """Return the module that a sparse one was made of, with the fields that it has now."""
    return type(module).dense_class(**_fields(module))  # pyright: ignore[reportAttributeAccessIssue]


def plan_of(module: Any) -> Plan | None:
    """Return the plan of a sparse module; None for any other object."""
    plan = getattr(module, "sparse_plan", None)
    return plan if isinstance(plan, Plan) else None


def _fields(module: nn.Module) -> dict[str, Any]:
    """Constructor arguments of a module, but for its parent."""
    names = [field.name for field in dataclasses.fields(module) if field.init and field.name != "parent"]
    return {name: getattr(module, name) for name in names}


def _restore(dense_class: type[nn.Module], fields: dict[str, Any], plan: Plan) -> nn.Module:
    key = (dense_class, plan)
    kind = _CLASSES.get(key) or _CLASSES.setdefault(key, _sparse_class(*key))
    return kind(**fields)


def _sparse_class(dense_class: type[nn.Module], plan: Plan) -> type[nn.Module]:
    """Return a subclass of a module's class whose methods see sparse layers.

    It has the methods, fields and names of the class, so it stands wherever that does. The plan belongs to the class
    and not to its fields: transformed classes (``nn.remat(Model)``) hand their fields to the class inside. There is one
    class for equal plans, so that equal modules are equal; pickles are of the dense class, the fields and the plan.
    """
    methods = {name: _entered(name, function) for name, function in _methods(dense_class).items()}
    namespace = {
        "__module__": dense_class.__module__,
        "__doc__": f"``{dense_class.__name__}`` with sparse layers, made by ``sparsejax.nn.linen.sparsify``.",
        "sparse_plan": plan,
        "dense_class": dense_class,
        "setup": _setup(dense_class),
        "apply": _caller(dense_class.apply),
        "init_with_output": _caller(dense_class.init_with_output),
        "__reduce__": nn.nowrap(lambda self: (_restore, (dense_class, _fields(self), plan))),
        **methods,
    }
    return type(f"Sparse{dense_class.__name__}", (dense_class,), namespace)


def _methods(kind: type[nn.Module]) -> dict[str, Callable[..., Any]]:
    """The methods of a class, inherited ones included, that run with variables: those that Flax wraps."""
    methods: dict[str, Callable[..., Any]] = {}
    fields = {field.name for field in dataclasses.fields(kind)}
    for base in reversed(kind.__mro__[: kind.__mro__.index(nn.Module)]):
        for name, value in vars(base).items():
            special = name == "setup" or (name.startswith("__") and name != "__call__")
            if not special and name not in fields and hasattr(value, "method_handler_wrapped"):
                methods[name] = value
    return methods


def _entered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that runs another one of the dense class with sparse layers."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.sparse_plan.layers or self.scope is None or _IN_SETUP.get() or _is_entered(self):
            return function(self, *args, **kwargs)
        return _run(self, function, args, kwargs)

    method.__name__, method.__doc__ = name, function.__doc__
    return method


def _setup(dense_class: type[nn.Module]) -> Callable[[Any], None]:
    """Return ``setup`` of a class; methods that it calls prepare layers and run none."""

    def setup(self: Any) -> None:
        token = _IN_SETUP.set(True)
        try:
            dense_class.setup(self)
        finally:
            _IN_SETUP.reset(token)

    return setup


def _caller(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``apply`` or ``init_with_output`` that runs any ``method`` with sparse layers, also a function."""

    @nn.nowrap
    @functools.wraps(function)
    def call(self: Any, variables: Any, *args: Any, method: Any = None, **kwargs: Any) -> Any:
        def run(module: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(method, str):
                return getattr(module, method)(*args, **kwargs)
            return getattr(method, "__func__", method)(module, *args, **kwargs)

        entered = None if method is None else _entered("__call__", run)
        return function(self, variables, *args, method=entered, **kwargs)

    return call


def _is_entered(module: Any) -> bool:
    """Whether the patterns are among the parameters already: a method that is called by another one."""
    params = module.variables.get("params", {})
    return "pattern" in (at(params, module.sparse_plan.layers[0].path) or {})


def _run(module: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    plan: Plan = module.sparse_plan
    if module.is_initializing() and module.is_mutable_collection("pattern"):
        for name, node in plan.pattern_collection().items():
            module.put_variable("pattern", name, node)
    patterns = plan.patterns(module.variables.get("pattern", {}))
    mutable = module.is_mutable_collection("params")

    def enter(collections: Any) -> Any:
        params = with_patterns(collections.get("params", {}), patterns, create=module.is_initializing())
        return {**collections, "params": params}

    def leave(collections: Any) -> Any:
        return {**collections, "params": without_patterns(collections.get("params", {}), patterns)}

    with _intercepting(plan, module.path):
        return nn.map_variables(function, "params", enter, leave, mutable=mutable)(module, *args, **kwargs)


@contextmanager
def _intercepting(plan: Plan, root: Path) -> Generator[None]:
    """Let the layers of a plan run sparse, below the scope ``root``."""

    def intercept(next_fun: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Any:
        module = context.module
        if module.scope is None or kind_of(context.orig_method.func, module) is None:
            return next_fun(*args, **kwargs)
        layer = plan.by_path.get(module.path[len(root) :]) if module.path[: len(root)] == root else None
        pattern = module.get_variable("params", "pattern") if layer is not None else None
        if layer is None or pattern is None:
            return next_fun(*args, **kwargs)
        if not module.has_variable("params", "kernel"):
            next_fun(*args, **kwargs)  # draws kernel and bias with the keys of the dense layer
            dense = nn.meta.unbox(module.get_variable("params", "kernel"))
            empty = layer.layer(pattern.indices, pattern.indices, pattern)
            module.put_variable("params", "kernel", empty.gather(dense))
        return _product(module, layer, pattern, call_arguments(args, kwargs)[0])

    with nn.intercept_methods(intercept):
        yield


def _product(module: nn.Module, layer: StoredLayer, pattern: SparsityPattern, inputs: Any) -> Any:
    kernel, bias = (nn.meta.unbox(module.get_variable("params", name)) for name in ("kernel", "bias"))
    if kernel.shape != pattern.indices.shape:
        name = "/".join((*layer.path, "kernel"))
        hint = "Pass the variables that sparsify returned, or gathered ones of equal shape."
        rule = f"shape {pattern.indices.shape}, the stored entries"
        fail(type(module).__name__, f"parameter '{name}'", f"shape {kernel.shape}", rule, hint)
    return layer.layer(kernel, bias, pattern)(inputs)  # pyright: ignore[reportCallIssue]
