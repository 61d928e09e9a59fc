"""ONNX graphs as modules whose layers can be read, edited and differentiated."""
