"""The option of XLA under which its elementwise operations keep up in the batch-minor layout."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_EXTRA = "--xla_backend_extra_options"
FLAG = f"{_EXTRA}=xla_cpu_disable_tiled_emitter"


def add_flag(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set ``FLAG`` for the XLA that starts in this environment from now on, unless its extra options are set already.

    XLA's tiled emitter (jaxlib 0.10) makes scalar code of an addition whose operands lie batch-minor, such as that of
    the two gradients where a residual block begins: seven times slower than the loop it makes otherwise. XLA reads
    its flags once, at the first computation.

    >>> environment = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    >>> add_flag(environment)
    >>> environment["XLA_FLAGS"]
    '--xla_cpu_multi_thread_eigen=false --xla_backend_extra_options=xla_cpu_disable_tiled_emitter'
    """
    flags = environment.get("XLA_FLAGS", "")
    if _EXTRA not in flags:
        environment["XLA_FLAGS"] = f"{flags} {FLAG}".strip()
