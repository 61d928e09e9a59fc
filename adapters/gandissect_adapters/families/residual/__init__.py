"""Residual and attention GANs: SNGAN, SAGAN, cGAN with projection, WGAN-GP, BigGAN, StudioGAN."""
