"""Networks that a file describes as a graph, as ordinary modules whose every layer a forward hook reads and replaces.

module = script.read(path, device).module    # nn.Module; names of the original submodules
"""
