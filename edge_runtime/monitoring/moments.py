"""Mean and variance of a stream, kept in three numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Moments:
    """Welford (1962), Technometrics 4: no large sums that cancel. Values are finite."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean

    def add(self, value: float) -> None:
        self.count += 1
        away = value - self.mean
        self.mean += away / self.count
        self.squares += away * (value - self.mean)

    def merge(self, other: Moments) -> None:
        """As if the other's values had been added here. Chan, Golub, LeVeque (1979), equation 2.1."""
        count = self.count + other.count
        if count == 0:
            return
        away = other.mean - self.mean
        self.squares += other.squares + away * away * self.count * other.count / count
        self.mean += away * other.count / count
        self.count = count

    @property
    def variance(self) -> float:
        """Of the sample, n - 1; 0 for fewer than two values."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0
