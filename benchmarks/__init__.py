"""Facula's figures against PyTorch's, on this machine: ``python -m benchmarks``."""
