"""Old home of the checks of numbers, until every import names the new one."""

from sparsejax._checks import check_integer as check_integer
from sparsejax._checks import check_weight as check_weight
