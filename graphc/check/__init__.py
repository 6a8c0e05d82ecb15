"""Checks of ops, layers, gradients, passes and plans."""

from __future__ import annotations

from graphc.check.random_net import random_net as random_net
