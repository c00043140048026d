"""What the loop sees and does about it: windows, skew, alerts told, and the causes of runs."""
