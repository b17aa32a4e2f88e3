"""Weights that are kept while a run is trained, so that ``diagnose`` sees how it came about."""

from __future__ import annotations

from dataclasses import dataclass

from safetensors.torch import save_file
from torch import nn

from resnet_variants.models.network import ResNet
from resnet_variants.records.files import atomic_file
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.training.recipe import Recipe


@dataclass(frozen=True)
class Snapshots:
    """Those of one run, after epochs 1, 2, 4 and so on but the last."""

    folder: RunFolder
    recipe: Recipe
    wanted: bool

    def begin(self, model: ResNet) -> ResNet:
        """The model; its initial weights are kept where a seed alone does not give them again."""
        if self.recipe.weights:
            self.add(model, 0)
        return model

    def add(self, model: nn.Module, epoch: int) -> None:
        """Keep the weights after an epoch, if it is one of those."""
        if self.wanted and epoch & (epoch - 1) == 0 and epoch < self.recipe.epochs:
            file = self.folder.snapshot(epoch)
            file.parent.mkdir(exist_ok=True)
            state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            with atomic_file(file) as temporary:
                save_file(state, temporary)
