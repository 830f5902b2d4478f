"""The change that a LoRA makes to one weight, in each form found in files, and how to add it.

For a weight seen as a matrix [out, in] and ``f = scale * alpha / rank``:

- LoRA and LoCon: ``W += f * up @ down``
- LoHa: ``W += f * (w1_a @ w1_b) * (w2_a @ w2_b)``, element by element
- LoKr: ``W += f * kron(w1, w2)``
- full difference: ``W += scale * diff``

Every form is added exactly, with the formulas of peft (``get_delta_weight``) and LyCORIS (``functional``), which
defines LoCon, LoHa and LoKr. Knows nothing about files and layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Change:
    """``factor`` times a matrix [out, in], for a weight [out, ...]; ``in`` is the product of the other dimensions.

    Attributes:
        factor: ``alpha / rank``.
        tensors: the file's tensors that make up the matrix.
    """

    factor: float
    tensors: tuple[torch.Tensor, ...]

    @property
    def is_zero(self) -> bool:
        """Whether it changes nothing: the factor is 0, or one tensor of the product is all zeros."""
        return self.factor == 0 or not all(tensor.float().any() for tensor in self.tensors)

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """Add the change times ``scale`` to a weight in float32, in place."""
        raise NotImplementedError

    def split(self, rows: Sequence[int], order: torch.Tensor | None = None) -> list[Change]:
        """Split it into parts of ``rows[i]`` rows each, one per layer; ``order`` [out] reorders the rows first."""
        raise NotImplementedError

    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(down [rank, in], up [out, rank]) with ``up @ down`` equal to the matrix; None if the rank is too high to
        save memory."""
        raise NotImplementedError


@dataclass(frozen=True)
class LowRank(Change):
    """``up @ down`` from tensors (down [rank, in], up [out, rank]): LoRA, and LoCon with its middle factor merged."""

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """One fused multiply-add, without a second matrix of the weight's size."""
        down, up = (factor.to(weight.device).float() for factor in self.tensors)
        weight.view(len(weight), -1).addmm_(up, down, alpha=scale * self.factor)

    def split(self, rows: Sequence[int], order: torch.Tensor | None = None) -> list[Change]:
        """Split the rows of ``up``; all parts share ``down``."""
        down, up = self.tensors
        up = up if order is None else up[order]
        return [replace(self, tensors=(down, part)) for part in torch.split(up, list(rows))]

    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The two tensors themselves."""
        return self.tensors[0], self.tensors[1]


@dataclass(frozen=True)
class Whole(Change):
    """The whole matrix, in the weight's shape: the form of ``.diff`` keys.

    Attributes:
        rows: indices of the rows of :meth:`whole` that make up this change, in order; None for all rows.
    """

    rows: torch.Tensor | None = None

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """Compute the matrix and add its rows."""
        matrix = self._part(self.whole(*(tensor.to(weight.device).float() for tensor in self.tensors)))
        weight.add_(matrix.reshape(weight.shape), alpha=scale * self.factor)

    def split(self, rows: Sequence[int], order: torch.Tensor | None = None) -> list[Change]:
        """Keep the tensors, and give each part its row indices."""
        if order is None and len(rows) == 1:
            return [self]
        order = torch.arange(sum(rows)) if order is None else order
        return [replace(self, rows=part) for part in torch.split(order, list(rows))]

    def whole(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The matrix with all rows, in float32."""
        return tensors[0]

    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The factors of a LoHa or LoKr if they are small enough; None for a plain matrix, which has full rank."""
        if (found := self._factors(*(tensor.float() for tensor in self.tensors))) is None:
            return None
        down, up = found[0], self._part(found[1])
        # Above half of the matrix's number of elements, the factors would cost more than they save.
        return (down, up) if down.numel() + up.numel() <= up.shape[0] * down.shape[1] / 2 else None

    def _factors(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        return None

    def _part(self, matrix: torch.Tensor) -> torch.Tensor:
        return matrix if self.rows is None else matrix[self.rows.to(matrix.device)]


@dataclass(frozen=True)
class Hadamard(Whole):
    """LoHa: ``(w1_a @ w1_b) * (w2_a @ w2_b)``, element by element, from tensors (w1_a, w1_b, w2_a, w2_b).

    ``a`` is [out, rank] and ``b`` is [rank, in].
    """

    def whole(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The product in float32."""
        w1_a, w1_b, w2_a, w2_b = tensors
        return (w1_a @ w1_b) * (w2_a @ w2_b)

    def _factors(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors of rank r^2: ``sum_ij (a1_i * a2_j) (b1_i * b2_j)`` over every pair of columns i and j."""
        w1_a, w1_b, w2_a, w2_b = tensors
        up = (w1_a[:, :, None] * w2_a[:, None, :]).flatten(1)
        return (w1_b[:, None, :] * w2_b[None, :, :]).flatten(0, 1), up


@dataclass(frozen=True)
class Kronecker(Whole):
    """LoKr: the Kronecker product of w1 [m, k] and w2 [p, q], for a weight [m p, k q].

    Attributes:
        parts: number of tensors of w1 and of w2: 1 for the matrix itself, 2 for a product ``a @ b``.
    """

    parts: tuple[int, int] = (1, 1)

    def whole(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The product in float32."""
        first, second = tensors[: self.parts[0]], tensors[self.parts[0] :]
        return torch.kron(_product(first), _product(second))

    def _factors(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """``kron(a @ b, c @ d) = kron(a, c) @ kron(b, d)``; a half without factors uses ``b`` or ``d`` = identity."""
        first, second = tensors[: self.parts[0]], tensors[self.parts[0] :]
        if self.parts == (1, 1):
            return None
        (a, b), (c, d) = (
            part if len(part) == 2 else (part[0], torch.eye(part[0].shape[1])) for part in (first, second)
        )
        return torch.kron(b, d), torch.kron(a, c)


def _product(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    return factors[0] if len(factors) == 1 else factors[0] @ factors[1]
