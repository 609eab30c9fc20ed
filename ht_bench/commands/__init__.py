"""The command line's commands, a file each; `ht_bench.cli` gathers them.

No torch is imported before a command that trains runs.
"""
