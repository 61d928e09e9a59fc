"""Classic GANs that are no plain stack: several heads, labels, codes, coupled networks."""
