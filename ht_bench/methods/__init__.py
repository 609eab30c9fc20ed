"""Methods, one file each; `base.Method` is the contract. Import from `ht_bench` or by name."""
