"""How fast a network trains here: this package beside a plain loop and timm's parts."""
