"""Old home of ``mask_from_scores``, until every import names the new one."""

from sparsejax.pruning._masks import mask_from_scores as mask_from_scores
