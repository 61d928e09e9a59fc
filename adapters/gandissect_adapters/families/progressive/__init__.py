"""Progressively grown GANs: ProGAN in five spellings and BMSG-GAN."""
