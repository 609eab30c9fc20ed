"""How results look: text, figures, TensorBoard, the leaderboard's pages."""
