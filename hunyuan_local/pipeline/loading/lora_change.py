"""The change that a LoRA makes to one weight, in each form that files hold it in, and how it is added.

Every form is exact: the formulas are those of peft (``get_delta_weight``) and LyCORIS (``functional``), where
LoCon, LoHa and LoKr come from. Knows nothing about files and layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Change:
    """Of a weight [out, ...]: ``factor`` times a matrix [out, in], ``in`` the product of the other sizes.

    Attributes:
        factor: ``alpha / rank``.
        tensors: what the file has of the matrix.
    """

    factor: float
    tensors: tuple[torch.Tensor, ...]

    @property
    def is_zero(self) -> bool:
        """Whether it changes nothing: a factor of a product that is all zeros."""
        return self.factor == 0 or not all(tensor.float().any() for tensor in self.tensors)

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """Add it to a weight in float32, in place."""
        raise NotImplementedError

    def split(self, rows: Sequence[int], order: torch.Tensor | None = None) -> list[Change]:
        """It for each part of a layer, by the numbers of their rows; ``order`` [out] puts the rows in order first."""
        raise NotImplementedError

    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(down [rank, in], up [out, rank]) with ``up @ down`` the matrix; None where their rank is too high to be of
        use."""
        raise NotImplementedError


@dataclass(frozen=True)
class LowRank(Change):
    """``up @ down``, with tensors (down [rank, in], up [out, rank]): LoRA, and LoCon with its middle multiplied in."""

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """See :meth:`Change.add_to`."""
        down, up = (factor.to(weight.device).float() for factor in self.tensors)
        weight.view(len(weight), -1).addmm_(up, down, alpha=scale * self.factor)

    def split(self, rows: Sequence[int], order: torch.Tensor | None = None) -> list[Change]:
        """See :meth:`Change.split`."""
        down, up = self.tensors
        up = up if order is None else up[order]
        return [replace(self, tensors=(down, part)) for part in torch.split(up, list(rows))]

    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See :meth:`Change.low_rank`."""
        return self.tensors[0], self.tensors[1]


@dataclass(frozen=True)
class Whole(Change):
    """The matrix itself, with the weight's shape: what ``.diff`` holds.

    Attributes:
        rows: which rows of the matrix of :meth:`whole` it is, in their order; None is all.
    """

    rows: torch.Tensor | None = None

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """See :meth:`Change.add_to`."""
        matrix = self._part(self.whole(*(tensor.to(weight.device).float() for tensor in self.tensors)))
        weight.add_(matrix.reshape(weight.shape), alpha=scale * self.factor)

    def split(self, rows: Sequence[int], order: torch.Tensor | None = None) -> list[Change]:
        """See :meth:`Change.split`."""
        if order is None and len(rows) == 1:
            return [self]
        order = torch.arange(sum(rows)) if order is None else order
        return [replace(self, rows=part) for part in torch.split(order, list(rows))]

    def whole(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The matrix of all rows, in float32."""
        return tensors[0]

    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See :meth:`Change.low_rank`; a matrix has the highest rank."""
        if (found := self._factors(*(tensor.float() for tensor in self.tensors))) is None:
            return None
        down, up = found[0], self._part(found[1])
        # More numbers than half of those of the matrix: it would cost more than it saves.
        return (down, up) if down.numel() + up.numel() <= up.shape[0] * down.shape[1] / 2 else None

    def _factors(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        return None

    def _part(self, matrix: torch.Tensor) -> torch.Tensor:
        return matrix if self.rows is None else matrix[self.rows.to(matrix.device)]


@dataclass(frozen=True)
class Hadamard(Whole):
    """``(w1_a @ w1_b) * (w2_a @ w2_b)``, element by element: LoHa, with tensors (w1_a, w1_b, w2_a, w2_b).

    ``a`` is [out, rank] and ``b`` [rank, in].
    """

    def whole(self, *tensors: torch.Tensor) -> torch.Tensor:
        """See :meth:`Whole.whole`."""
        w1_a, w1_b, w2_a, w2_b = tensors
        return (w1_a @ w1_b) * (w2_a @ w2_b)

    def _factors(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every pair of a column of one and a column of the other: rank squared."""
        w1_a, w1_b, w2_a, w2_b = tensors
        up = (w1_a[:, :, None] * w2_a[:, None, :]).flatten(1)
        return (w1_b[:, None, :] * w2_b[None, :, :]).flatten(0, 1), up


@dataclass(frozen=True)
class Kronecker(Whole):
    """The Kronecker product of w1 [m, k] and w2 [p, q], for a weight [m p, k q]: LoKr.

    Attributes:
        parts: of w1, then of w2: 1 where it is there itself, 2 where it is a product ``a @ b``.
    """

    parts: tuple[int, int] = (1, 1)

    def whole(self, *tensors: torch.Tensor) -> torch.Tensor:
        """See :meth:`Whole.whole`."""
        first, second = tensors[: self.parts[0]], tensors[self.parts[0] :]
        return torch.kron(_product(first), _product(second))

    def _factors(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """``kron(a @ b, c @ d)`` is ``kron(a, c) @ kron(b, d)``."""
        first, second = tensors[: self.parts[0]], tensors[self.parts[0] :]
        if self.parts == (1, 1):
            return None
        (a, b), (c, d) = (
            part if len(part) == 2 else (part[0], torch.eye(part[0].shape[1])) for part in (first, second)
        )
        return torch.kron(b, d), torch.kron(a, c)


def _product(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    return factors[0] if len(factors) == 1 else factors[0] @ factors[1]
