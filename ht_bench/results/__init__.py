"""Results: their schema, scores, tables, pictures and TensorBoard views."""
