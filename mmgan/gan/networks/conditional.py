"""What makes networks class-conditional: batch norm by class in a generator, projection in a discriminator.

Classes are vectors [N, C]: one-hot for a class, and mixtures of these if rows are mixed or classes interpolated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmgan.mixup import Plans


class ConditionalNorm(nn.Module):
    """Batch norm with a scale and shift per class: y gamma * norm(x) + y beta; initially gamma is 1 and beta is 0.

    (Dumoulin et al. 2017, arXiv:1610.07629, Eq. 5.)
    """

    def __init__(self, width: int, classes: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, eps=eps, affine=False)
        self.gamma = nn.Linear(classes, width, bias=False)
        self.beta = nn.Linear(classes, width, bias=False)
        nn.init.ones_(self.gamma.weight)
        nn.init.zeros_(self.beta.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """`x`: maps [N, width, H, W]; `y`: classes [N, C]."""
        h = self.norm(x)
        with torch.autocast(x.device.type, enabled=False):  # half precision would round scales to three digits
            gamma, beta = self.gamma(y), self.beta(y)
        return (h * gamma[:, :, None, None] + beta[:, :, None, None]).to(h.dtype)


class Projection(nn.Module):
    """d(x, y) = (w + E y) . phi(x), the projection discriminator (Miyato & Koyama 2018, arXiv:1802.05637, Eq. 3).

    `features` is phi, from images to [N, width], `Staged` or `Mixable` if it is to be mixed. The class of a mixed row,
    like its target, is mixed by the plan that mixes its states, so mixing phi itself by lam gives
    lam d(a, y_a) + (1 - lam) d(b, y_b) - lam (1 - lam) (E y_a - E y_b) . (phi(a) - phi(b)).

    Examples:
        >>> import torch
        >>> from mmgan.mixup import DiscriminatorMixup, Staged
        >>> network = Projection(Staged(torch.nn.Flatten(), torch.nn.Linear(9, 4)), width=4, classes=3)
        >>> x, target_and_class = torch.rand(8, 1, 3, 3), torch.rand(8, 1 + 3)
        >>> logits, y = network(x, DiscriminatorMixup(layers=(1,)).draw(4), target_and_class)
        >>> logits.shape, y.shape
        (torch.Size([20]), torch.Size([20, 4]))
    """

    def __init__(self, features: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.features, self.classes = features, classes
        self.linear = nn.Linear(width, 1, bias=False)
        self.embedding = nn.Linear(classes, width, bias=False)
        for layer in (self.linear, self.embedding):
            nn.init.xavier_uniform_(layer.weight)

    @property
    def depth(self) -> int:
        """Number of layers available for mixing: those of `features`."""
        return self.features.depth  # type: ignore[return-value]

    def forward(self, x: Tensor, plans: Plans = Plans(), y: Tensor | None = None) -> Any:  # noqa: B008
        """Logits [R] of images `x` [N, ...], mixed by `plans`; with `y`, whose last C columns are classes, its mix too.

        `y` is [N, C], or [N, 1 + C] with the target first. Without it, the part shared by all classes: w . phi(x).
        """
        if y is None:
            return self.linear(self.features(x, plans) if plans else self.features(x)).squeeze(1)
        phi, y = self.features(x, plans, y) if plans else (self.features(x), y)
        with torch.autocast(x.device.type, enabled=False):  # a mixed class is exact, as its target is
            of_class = self.embedding(y[:, -self.classes :])
        return self.linear(phi).squeeze(1) + (of_class * phi).sum(1), y
