"""Tensor, autograd, nn, optim and jit."""
