"""What every network of the zoo takes and gives back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class NetworkOutputs(NamedTuple):
    """The four outputs of a lesion network, in the order of the ONNX file.

    Shapes, for a batch of N images of S by S pixels and seven classes:

    * ``mask_logits`` [N, 1, S, S]: lesion against skin, at input size;
    * ``class_logits`` [N, 7]: alphabetical class order;
    * ``activation_map`` [N, 7, h, w]: class activation maps; their spatial mean plus the classifier's bias is
      ``class_logits`` (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016). Where a
      class token decides, it is the attention roll-out, scaled so that the same holds
      (:class:`~models.training.architectures.heads.RolloutHead`);
    * ``embedding`` [N, D]: the pooled feature vector, or the class token, that the classifier reads.
    """

    mask_logits: Tensor
    class_logits: Tensor
    activation_map: Tensor
    embedding: Tensor


@runtime_checkable
class LesionNetwork(Protocol):
    """One network: a mask, a class, an explanation and an embedding from one pass."""

    def __call__(self, image: Tensor) -> NetworkOutputs:
        """Normalised RGB [N, 3, S, S] to the four outputs."""
        ...

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Trainable parameters that start from pretrained weights (they get the smaller learning rate)."""
        ...

    def fresh_parameters(self) -> Iterator[nn.Parameter]:
        """Trainable parameters that start from random values."""
        ...

    def shift_class_logits(self, bias: list[float]) -> None:
        """Add a constant to every class logit, for good (used once, before export)."""
        ...
