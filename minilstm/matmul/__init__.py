"""The matrix product under everything: C = A @ B + bias, as ``reference.product`` and ``cpu.product``."""
