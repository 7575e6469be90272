"""Speed and memory of the neurons beside their peers; ``python -m benchmarks.speed`` measures them."""
