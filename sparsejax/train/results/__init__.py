"""What a run cost and reached: accuracy, time, operations, memory, and their tables."""
