"""Identities: the cluster's own authority, what pins it, tokens, and files that only their owner may read.

The only package that imports `cryptography`; `tokens`, `fingerprint` and `files` do without it, so that a program that
only speaks to a server it already knows does not load it.
"""
