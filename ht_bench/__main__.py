"""`python -m ht_bench` is `ht-bench`."""

import sys

from ht_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
