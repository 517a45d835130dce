"""How it is measured: pinned processes, timing, the limits of the machine, targets and reports."""
