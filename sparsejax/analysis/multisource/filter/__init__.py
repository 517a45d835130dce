"""Which sources to keep: distances between sources, the fits behind them, and the rules of selection."""
