"""What an executor is made of: state, workspace, feeds, bound programs."""
