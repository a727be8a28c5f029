"""What layers and training do with arrays themselves, beside their kernels: check, copy, add, choose.

``host.py`` is for the backends whose arrays are NumPy's, ``gpu.py`` for the one whose arrays are in a GPU's memory.
Both have the same functions, so that a layer is written once: ``self.arrays.add(a, b)``.
"""
