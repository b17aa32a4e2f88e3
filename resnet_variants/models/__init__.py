"""What a network is: axes, variant, network, timm registration, cost."""
