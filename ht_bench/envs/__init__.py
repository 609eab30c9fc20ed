"""Streams as Gymnasium environments, registered under `ht_bench/`."""
