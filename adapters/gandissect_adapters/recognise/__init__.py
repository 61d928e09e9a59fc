"""From names and shapes of tensors back to a network: unwrap, fold, chain, search, verify, build."""
