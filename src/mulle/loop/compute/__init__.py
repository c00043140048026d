"""What a run computes, in child processes that can be killed; tasks take small JSON and leave files by rename."""
