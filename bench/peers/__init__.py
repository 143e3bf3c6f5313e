"""What `bench/peers.py` is made of: the model that everybody runs, one small file a peer, the child process.

Modules of peers and `child`, `shape`, `weights` need the standard library and NumPy only: they run in
Python environments that hold a peer and nothing else.
"""
