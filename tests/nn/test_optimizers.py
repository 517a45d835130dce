"""The table of docs/how-to/optimizers.md: which optimizers train stored kernels as they train masked dense ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from optax import contrib

from sparsejax import nn, sparsify

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "optimizers.md"
STEPS = 5
QUICK = ("adamw", "lamb", "adafactor", "muon")

# Optax's default, 1e-4, changes too little in five steps to be seen.
decayed = functools.partial(optax.adamw, 1e-2, weight_decay=0.1)
SPECIAL: dict[str, Callable[[], Any]] = {
    "adamw, mask=ndim > 1": lambda: decayed(mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
    "adamw, mask=kernel_mask": lambda: decayed(mask=nn.kernel_mask),
    "adafactor": lambda: optax.adafactor(1e-2, min_dim_size_to_factor=2),
    "adamw": decayed,
    "noisy_sgd": lambda: optax.noisy_sgd(1e-2, key=jax.random.key(0)),
    "lbfgs": lambda: optax.lbfgs(1e-2, linesearch=None),
    "cocob": contrib.cocob,
    "galore": lambda: contrib.galore(1e-2, rank=2),
    "schedule_free": lambda: contrib.schedule_free(optax.adam(1e-2, b1=0.0), 1e-2),
    "optimistic_adam_v2": lambda: optax.optimistic_adam_v2(1e-2),
}


def optimizer(name: str) -> Any:
    if name in SPECIAL:
        return SPECIAL[name]()
    return (getattr(optax, name, None) or getattr(contrib, name))(1e-2)


class Table:
    """Rows of the page: optimizer, equal as it is, equal through ``dense_view``."""

    def __init__(self, text: str) -> None:
        lines = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
        self.rows = {cells[0]: (cells[1], cells[2]) for cells in lines[2:]}


TABLE = Table(PAGE.read_text())


@functools.cache
def models() -> tuple[nnx.Module, nnx.Module, Any]:
    """A masked dense model, its sparse form and the batch."""
    rngs, rng = nnx.Rngs(0), np.random.default_rng(0)
    dense = nnx.Sequential(nnx.Linear(6, 8, rngs=rngs), jnp.tanh, nnx.Linear(8, 4, rngs=rngs))
    masks = {path: rng.random(kernel.shape) < 0.4 for path, kernel in nn.dense_kernels(dense).items()}
    sparse, _ = sparsify(dense, masks, min_sparsity=0.0, policy="always")
    x, y = (jnp.asarray(rng.normal(size=(5, width)), jnp.float32) for width in (6, 4))
    return nn.densify(sparse), sparse, (x, y)


def losses(model: nnx.Module, tx: Any, *, masked: bool) -> np.ndarray:
    """Losses of five steps; ``masked`` keeps gradients and updates inside the zeros of the first kernels."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params = nnx.as_pure(params)
    keep = jax.tree.map(lambda leaf: (leaf != 0) if masked and leaf.ndim > 1 else jnp.ones(leaf.shape, bool), params)
    tx = optax.with_extra_args_support(tx)

    def loss(params: Any) -> jax.Array:
        x, y = models()[2]
        return ((nnx.merge(graph, params, rest)(x) - y) ** 2).mean()

    def kept(tree: Any) -> Any:
        return jax.tree.map(lambda leaf, mask: jnp.where(mask, leaf, 0), tree, keep)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(kept(grads), state, params, value=value)
        return (optax.apply_updates(params, kept(updates)), state), value

    run = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), length=STEPS + 1)[1])
    return np.asarray(run(params))


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TABLE.rows]
)
def test_the_table_says_which_steps_are_those_of_masked_dense_training(name: str) -> None:
    dense, sparse, _ = models()
    expected = losses(dense, optimizer(name), masked=True)
    results = (losses(sparse, tx, masked=False) for tx in (optimizer(name), nn.dense_view(optimizer(name), sparse)))
    equal = tuple("yes" if np.allclose(result, expected, rtol=1e-5, atol=1e-5) else "no" for result in results)
    assert equal == TABLE.rows[name]


def test_the_table_has_every_optimizer() -> None:
    def factories(module: Any) -> set[str]:
        named = {name: member for name, member in vars(module).items() if inspect.isfunction(member)}
        takes_rate = {name for name, member in named.items() if "learning_rate" in inspect.signature(member).parameters}
        return {name for name in takes_rate if not name.startswith(("scale_by_", "_"))}

    missing = (factories(optax) | factories(contrib)) - TABLE.rows.keys()
    assert missing == {"dpsgd", "sophia"}  # they take other gradients, and more than gradients
