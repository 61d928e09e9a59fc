"""One pass over the samples for everyone: networks in whole blocks, in chunks that are shared out, kept, and merged in a fixed order.

A :class:`~gandissect.session.Session` is how analyzers ask for it; those that run a network on images of their own take
``BLOCK`` and ``filled`` from :mod:`.running`.
"""
