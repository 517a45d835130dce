"""What a run reports while it trains: a row for each step, the progress shown, and the curves."""
