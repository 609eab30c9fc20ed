"""One of each kind of thing that ht-bench takes from an installed package."""
