"""Models of ONNX, compared with what ONNX Runtime computes."""

from tests.extras import needs

needs("onnx")
needs("onnxruntime")
