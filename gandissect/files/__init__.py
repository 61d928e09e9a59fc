"""What is in a file, told without running anything of it.

seen = peek("netG.pth")                  # its container, its tensors by name and shape, what its pickles ask for
tensors = read_tensors(seen.path, seen.container)

Bytes first (:mod:`.containers`, :mod:`.archives`), then the instructions of its pickles (:mod:`.opcodes`), carried out by a reader
that makes inert records of whatever is not known to be harmless (:mod:`.ghost`, :mod:`.records`).
"""
