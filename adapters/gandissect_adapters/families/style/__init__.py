"""Style-based generators: StyleGAN 1, 2, 3 and XL in the spellings of five codebases."""
