"""Networks that take images or codes: translation, super-resolution, VQGAN."""
