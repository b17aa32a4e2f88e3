"""An ablation laboratory for residual networks."""
from resnet_variants.models.cost import cost
from resnet_variants.models.variant import Variant, grid, parse_name, preset
from resnet_variants.models.zoo import create_model, list_models
