"""The product in plain NumPy: the definition, for any dtype."""


def product(A, B, bias=None):
    """A @ B + bias.  A (M,K), B (K,N), bias (N,) or None -> (M,N)."""
    return A @ B if bias is None else A @ B + bias
