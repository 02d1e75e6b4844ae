"""Steps of an optimiser as the references take them: one batch, no dropout, clipped gradients."""

import torch
import torch.nn.functional as F


def train_steps(network, optimizer, batch, labels, *, n_steps, clip_norm):
    """Train in place; return of each step the loss, and the gradient's norm before and after."""
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    losses, norms, clipped = [], [], []
    for _ in range(n_steps):
        loss = F.cross_entropy(network(**batch), labels)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm)))
        gradients = [x.grad for x in network.parameters() if x.grad is not None]
        clipped.append(float(torch.nn.utils.get_total_norm(gradients)))
        losses.append(loss.item())
        optimizer.step()
    network.eval()
    return losses, norms, clipped
