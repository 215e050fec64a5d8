"""The engine "triton": the search by the Triton kernels."""
