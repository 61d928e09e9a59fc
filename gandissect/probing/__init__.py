"""What an opened network is and can do: found by running it once, never assumed, and checked without its author.

gan = build_gan(networks, name="netG", opening=opening)     # its image size, latent, layers, and which of them can be edited
[check.verdict for check in verify(gan)]
"""
