"""Training on several processes: who belongs together, who writes, and one step over all of their rows."""
