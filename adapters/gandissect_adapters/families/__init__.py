"""Families of GANs that are rebuilt by name: one module for each codebase or paper, in plain PyTorch."""
