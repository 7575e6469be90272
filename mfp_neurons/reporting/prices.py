"""What an operation costs in energy, by the bits of its operands: published figures and nothing between them.

Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9: 45 nm, 0.9 V.
Where an operand has bits that the figure does not list, the next larger width that it lists is taken.
"""

import math

# joules an operation; what is added up is kept in 32 bits, as integer or as float
INTEGER_ADDITION = 0.1e-12
INTEGER_MULTIPLICATION_8 = 0.2e-12
INTEGER_MULTIPLICATION_32 = 3.1e-12
FLOAT_ADDITION = 0.9e-12
FLOAT_MULTIPLICATION = 3.7e-12

REAL = math.inf  # bits of an operand that is no whole number: a float of 32 bits


def addition(*bits: float) -> float:
    """Joules to add numbers of so many bits."""
    return FLOAT_ADDITION if REAL in bits else INTEGER_ADDITION


def multiplication(first: float, second: float) -> float:
    """Joules to multiply two numbers of so many bits."""
    widest = max(first, second)
    if widest == REAL:
        return FLOAT_MULTIPLICATION
    return INTEGER_MULTIPLICATION_8 if widest <= 8 else INTEGER_MULTIPLICATION_32


def accumulation(first: float, second: float) -> float:
    """Joules to add the product of two numbers to a sum.

    Whatever is multiplied by 1, -1 or 0, a spike or a weight of less than 2 bits, is only added.

    >>> [f"{1e12 * accumulation(weight, value):.1f}" for weight, value in [(1, 1), (8, 1), (8, 8), (REAL, 1)]]
    ['0.1', '0.1', '0.3', '0.9']
    """
    added = addition(first, second)
    return added if min(first, second) < 2 else multiplication(first, second) + added
