"""Built-in plugins of gandissect, one module or folder each."""
