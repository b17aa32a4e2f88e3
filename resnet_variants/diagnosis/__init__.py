"""Why it came out: what goes on inside a trained network, unit by unit."""
