"""`gc.onnx.save`."""


def save() -> None:
    """x"""
