"""The parts that touch vendors and machines, by family; they know core and kernel only."""
