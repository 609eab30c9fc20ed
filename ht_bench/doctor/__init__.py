"""Why it does not work here, and what to do: what `ht-bench doctor` looks at."""
