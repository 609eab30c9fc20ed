"""Getting things trained: plans, worker processes, results, searches."""
