"""What a run left: its record, its folder, the numbers read off its curve."""
