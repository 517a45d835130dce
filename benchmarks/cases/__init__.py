"""What is computed: shapes of layers, layers and networks with random masks, and their results in float64."""
