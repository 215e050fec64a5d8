"""What engines share: the job, its starts and losses, its plan, and the state of the process while it runs."""
