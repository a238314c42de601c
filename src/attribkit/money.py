"""Exact amounts of US dollars: Decimal in memory, whole pico-dollars (1e-12 USD) in stores."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

__all__ = ["PICO", "from_pico", "to_pico", "usd_text"]

PICO = Decimal("1e-12")
_WIDE = Context(prec=60, rounding=ROUND_HALF_EVEN)


def to_pico(usd: Decimal) -> int:
    """Return `usd` in whole pico-dollars, half to even below that."""
    return int(usd.scaleb(12, _WIDE).to_integral_value(ROUND_HALF_EVEN, _WIDE))


def from_pico(pico: int) -> Decimal:
    """Return the exact Decimal of a number of pico-dollars."""
    return Decimal(pico).scaleb(-12, _WIDE)


def usd_text(usd: Decimal | None) -> str | None:
    """Return a plain decimal string without exponent or trailing zeros ("0.0123"), or None."""
    if usd is None:
        return None
    text = format(usd, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
