"""GANs made to train fast: FastGAN, Projected GAN, lightweight-gan, R3GAN, GigaGAN."""
