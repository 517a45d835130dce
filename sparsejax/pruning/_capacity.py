"""Old home of ``Capacity``, until every import names the new one."""

from sparsejax.pruning.allocation._scopes import Capacity as Capacity
