"""Datasets looked at: profiles, relations, trends, and two versions side by side."""
