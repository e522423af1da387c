"""GPU kernels in Triton, installed as ``deltalens.kernels``."""
