"""What each kind of candidate is made of: its preparation, its estimator, its search space; one file a family."""
