"""Triton kernels: one family a file, the launcher beside its kernel. They know tensors and nothing of engines.

Importing this package loads no Triton; importing a kernel's module (``adgan_fast.kernels.adam``) does.
"""
