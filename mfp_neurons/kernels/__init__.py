"""The compiled kernels: C++ for the host (host/), CUDA (cuda/), and the arithmetic that both share."""
