"""The loss of one batch: diagnosis, melanoma and mask, each by the name that the configuration gives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from models.training.architectures.contract import NetworkOutputs
from models.training.configuration import CLASSES, Losses

MELANOMA = CLASSES.index("mel")


def diagnosis_loss(class_logits: Tensor, target: Tensor, log_prior: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of [N, 7] logits with the sampled class frequencies added (logit adjustment).

    Adding ``log_prior`` [7] while training leaves logits that answer for equal class frequencies (Menon et al.,
    arXiv:2007.07314, eq. 9), whatever mixture an epoch draws.
    """
    return F.cross_entropy(class_logits + log_prior, target, label_smoothing=smoothing)


def weighted_diagnosis_loss(class_logits: Tensor, target: Tensor, log_prior: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of [N, 7] logits, each image weighted by one over its class's share of an epoch.

    A weighted mean over the batch (as torch's ``weight`` does), so the scale is that of the plain loss. Like the
    adjusted loss it leaves logits that answer for equal class frequencies.
    """
    return F.cross_entropy(class_logits, target, weight=torch.exp(-log_prior), label_smoothing=smoothing)


def melanoma_focal_loss(class_logits: Tensor, target: Tensor, log_prior: Tensor, gamma: float) -> Tensor:
    """Focal loss (Lin et al., arXiv:1708.02002) of melanoma against the rest: hard melanomas weigh most."""
    log_probability = F.log_softmax(class_logits + log_prior, dim=1)
    rest = torch.cat([log_probability[:, :MELANOMA], log_probability[:, MELANOMA + 1 :]], dim=1).logsumexp(dim=1)
    log_right = torch.where(target == MELANOMA, log_probability[:, MELANOMA], rest)
    return (-((1 - log_right.exp()) ** gamma) * log_right).mean()


def mask_loss(mask_logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice (Milletari et al., arXiv:1606.04797) of [N, 1, S, S] against 0 and 1."""
    probability = mask_logits.sigmoid()
    overlap = (probability * mask).sum(dim=(1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum(dim=(1, 2, 3)) + mask.sum(dim=(1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(mask_logits, mask) + dice.mean()


def jaccard_loss(mask_logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the soft Jaccard index (Yuan et al., IEEE TMI 36:1876, 2017) of [N, 1, S, S] against 0 and 1."""
    probability = mask_logits.sigmoid()
    overlap = (probability * mask).sum(dim=(1, 2, 3))
    union = probability.sum(dim=(1, 2, 3)) + mask.sum(dim=(1, 2, 3)) - overlap
    return (1 - (overlap + 1) / (union + 1)).mean()


def jaccard_cross_entropy_loss(mask_logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy plus the soft Jaccard loss: a gradient everywhere, even where nothing overlaps yet."""
    return F.binary_cross_entropy_with_logits(mask_logits, mask) + jaccard_loss(mask_logits, mask)


#: ``losses.diagnosis`` of the configuration.
DIAGNOSIS_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "adjusted_cross_entropy": diagnosis_loss,
    "weighted_cross_entropy": weighted_diagnosis_loss,
}
#: ``losses.outline`` of the configuration.
OUTLINE_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dice_bce": mask_loss,
    "jaccard": jaccard_loss,
    "jaccard_bce": jaccard_cross_entropy_loss,
}


def total_loss(outputs: NetworkOutputs, target: Tensor, mask: Tensor, log_prior: Tensor, weights: Losses) -> Tensor:
    """The weighted sum of the three terms, in float32 whatever the network computed in.

    Images whose ``target`` is negative have no diagnosis: they count for the mask alone.
    """
    known = target >= 0
    class_logits, target = outputs.class_logits.float()[known], target[known]
    loss = outputs.class_logits.new_zeros(())
    if len(target):
        loss = DIAGNOSIS_LOSSES[weights.diagnosis](class_logits, target, log_prior, weights.label_smoothing)
        if weights.melanoma_focal:
            focal = melanoma_focal_loss(class_logits, target, log_prior, weights.focal_gamma)
            loss = loss + weights.melanoma_focal * focal
    if weights.mask:
        loss = loss + weights.mask * OUTLINE_LOSSES[weights.outline](outputs.mask_logits.float(), mask)
    return loss
