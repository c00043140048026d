"""Stage 3: split the rows, search candidates and parameters, fit the winner."""
