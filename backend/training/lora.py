"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) for networks of the package transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = ["adapted", "merged"]


def adapted(network: Any, rank: int, targets: Sequence[str]) -> nn.Module:
    """Put adapters beside the linear layers of a network that are named in `targets`.

    The network is changed in place. Adapters start as zero, with the usual scale of 2, and their
    parameters are named `*.lora_*`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets))
    found: nn.Module = inject_adapter_in_model(config, network)
    return found


def merged(network: nn.Module) -> nn.Module:
    """Add the adapters to the weights beside them, and leave plain layers of the old names."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(network.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, layer.get_base_layer())
    return network
