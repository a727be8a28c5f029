"""A cell unrolled over time, masked: ``reference`` in plain NumPy, ``cpu`` compiled.

Both have ``forward`` and ``backward`` with the same parameters, so that they can be read side by side.
"""
