"""Files from strangers: real ones, changed in many ways, and what reading them may do."""

from tests.extras import needs

needs("onnx")
