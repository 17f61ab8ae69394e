"""The whole system on one seed: hosts, a network, disks and processes that fail, and an oracle that looks on.

Everything runs in one thread on a virtual clock. The same seed gives the same run, event by event. Needs `trio` and
`apsw`.
"""
