"""Does a given network, with given data, have plasticity loss? `ht_bench.diagnose` answers."""
