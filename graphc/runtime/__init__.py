"""The parts of an executor: state, workspace, feeds, bound programs."""
