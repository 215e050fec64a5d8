"""Linear layers and convolutions with private weights: what they are, and the kernels of their three phases.

Importing this package loads no Triton; importing a kernel's module (``adgan_fast.kernels.maps.general``) does.
"""
