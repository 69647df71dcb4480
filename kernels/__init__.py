"""Compiled kernels. Pointers are passed as integers; the backends in `sparsebench.builtin` check what they point at."""
