"""Built-in adapters of gandissect, one module or folder each."""
