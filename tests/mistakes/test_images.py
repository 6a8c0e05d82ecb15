"""Mistakes in convolution, pools and norms of images."""

from __future__ import annotations

import pytest

import graphc as gc
from tests.mistakes.harness import Mistake, collector, name_of, refused

MISTAKES, mistake = collector()


@mistake(
    """
    conv: x has 3 channels, w takes 4
      x       x float32[N, 3, 8, 8]  declared at {x}
      weight  w float32[6, 4, 3, 3]  declared at {w}
      at {here}
      hint: a filter has the channels of x, with groups those of one group
    """
)
def wrong_channels() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3, 8, 8))  # x
    w = net.parameter("w", (6, 4, 3, 3))  # w
    gc.conv(x, w)  # here


@mistake(
    """
    conv: the window spans 7 x 3 pixels, the image with its padding 6 x 8
      x       x float32[N, 3, 4, 8]  declared at {x}
      weight  w float32[6, 3, 7, 3]  declared at {w}
      at {here}
      hint: take a smaller window, or pad the image
    """
)
def a_kernel_larger_than_the_image() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3, 4, 8))  # x
    w = net.parameter("w", (6, 3, 7, 3))  # w
    gc.conv(x, w, padding=(1, 0))  # here


@mistake(
    """
    conv2d: groups is 2, it must divide the 3 channels of x and the 4 of the result
      at {here}
      hint: each group maps its part of x's channels to its part of the result's
    """
)
def groups_that_do_not_divide() -> None:
    net = gc.Net("net")
    gc.conv2d(net.input("x", (gc.N, 3, 8, 8)), 4, 3, groups=2)  # here


@mistake(
    """
    conv: x has 4 channels, w takes 4 in each of 2 groups
      x       x float32[N, 4, 8, 8]  declared at {x}
      weight  w float32[6, 4, 3, 3]  declared at {w}
      at {here}
      hint: a filter has the channels of x, with groups those of one group
    """
)
def groups_of_other_weights() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4, 8, 8))  # x
    w = net.parameter("w", (6, 4, 3, 3))  # w
    gc.conv(x, w, groups=2)  # here


@mistake(
    """
    conv: x is float32[N, 64], conv2d takes floats of shape (N, channels, height, width)
      x  x float32[N, 64]  declared at {x}
      at {here}
    """
)
def rows_for_an_image() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 64))  # x
    gc.conv2d(x, 4, 3)  # here


@mistake(
    """
    conv: bias is float32[5], the result has 6 channels
      x       x float32[N, 1, 8, 8]  declared at {x}
      weight  w float32[6, 1, 3, 3]  declared at {w}
      bias    b float32[5]  declared at {b}
      at {here}
    """
)
def a_bias_of_another_length() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 1, 8, 8))  # x
    w = net.parameter("w", (6, 1, 3, 3))  # w
    b = net.parameter("b", (5,))  # b
    gc.conv(x, w, b)  # here


@mistake(
    """
    conv: stride is (1, 0), it must be a whole number from 1 up, or 2 of them
      at {here}
      hint: one for each dimension of space: stride=(1, 1)
    """
)
def a_stride_of_nothing() -> None:
    net = gc.Net("net")
    gc.conv2d(net.input("x", (gc.N, 1, 8, 8)), 4, 3, (1, 0))  # here


@mistake(
    """
    conv: padding is 'valid', as text it can only be 'same'
      at {here}
      hint: for what other libraries call 'valid', write padding=0
    """
)
def a_word_of_other_libraries() -> None:
    net = gc.Net("net")
    gc.conv2d(net.input("x", (gc.N, 1, 8, 8)), 4, 3, padding="valid")  # here


@mistake(
    """
    max_pool: padding is (1, 1, 1), it must be a whole number from 0 up, 2 of them, or 2 pairs of them
      at {here}
      hint: a pair says how much goes before and after: padding=((0, 1), (0, 1))
    """  # noqa: E501
)
def three_paddings() -> None:
    net = gc.Net("net")
    gc.max_pool(net.input("x", (gc.N, 1, 8, 8)), 3, padding=(1, 1, 1))  # here


@mistake(
    """
    max_pool: padding ((2, 2), (2, 2)) leaves a window without a pixel
      x  x float32[N, 1, 8, 8]  declared at {x}
      at {here}
      hint: the padding must be less than the window
    """
)
def a_window_of_padding_alone() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 1, 8, 8))  # x
    gc.max_pool(x, 2, padding=2)  # here


@mistake(
    """
    conv_transpose: padding 2 and 2 leaves nothing of 4 pixels
      x       x float32[N, 2, 3, 3]  declared at {x}
      weight  w float32[2, 4, 2, 2]  declared at {w}
      at {here}
    """
)
def padding_that_leaves_nothing() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 2, 3, 3))  # x
    w = net.parameter("w", (2, 4, 2, 2))  # w
    gc.conv_transpose(x, w, padding=2)  # here


@mistake(
    """
    groupnorm 'groupnorm_1': groups is 4, it must divide the 6 channels
      x      x float32[N, 6, 8, 8]  declared at {x}
      gamma  groupnorm_1.gamma float32[6]  declared at {this}
      beta   groupnorm_1.beta float32[6]  declared at {this}
      at {here}
    """
)
def channels_that_groups_do_not_divide() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 6, 8, 8))  # x
    gc.groupnorm(x, 4)  # here


@mistake(
    """
    pad: the batch dimension cannot be padded
      x  x float32[N, 6]  declared at {x}
      at {here}
    """
)
def a_padded_batch() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 6))  # x
    gc.pad(x, [1, 1])  # here


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_it_is_told_in_full(mistake: Mistake) -> None:
    refused(mistake)
