"""How one network is trained: data, recipe, loop. Knows no variants."""
