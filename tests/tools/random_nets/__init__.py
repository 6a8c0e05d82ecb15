"""Random nets made from the public API alone, as its documentation describes it.

`calls` is a net as data, `draw` and its neighbours draw one, `torch_*` say what it means,
`runs` runs it, `transformations` change what must not change a result.
"""
