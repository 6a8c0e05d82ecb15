"""Change a file: its bytes, or what they mean with checksums made right again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

from tests.tools.fuzz_files.seeds import Seed

BLANK = "0" * 64

NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 16, 17, 255, 4096, 10**6, 10**9, 2**31 - 1, 2**31, 2**32, 2**53),
    *(2**60, 2**62, 2**63 - 1, 2**63, 2**64, 2**80, 10**30, 10**400, -(2**63), -(10**20)),
    *(0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
)
TEXTS = (
    *("", "x", "N", "../../x", "/etc/passwd", "C:\\x", "a/b", ".", "..", "\0", "\n", "x\ny"),
    *("\u202e", "\u0430", "\ufeff", "\ud800", "é", "a" * 300, "%s%n", "__class__", "__init__"),
    *("float32", "float64", "int64", "bool", "object", "numpy", "native", "executor", "net"),
    *("input", "parameter", "state", "constant", "affine", "graphc 1", "graphc 2"),
)
WORDS = (
    *("N", "2*N", "1000000000*N", "True", "False", "None", "inf", "nan", "-1", "0", "1", "2"),
    *("1000000000", "4611686018427387904", "9" * 40, "1e308", "float32", "float64", "int64"),
    *("bool", "uint64", "(", ")", "[", "]", ",", "=", ":", "#", "layer", "output", "losses"),
    *("update", "gradient", "Zeros()", "He()", "Normal(std=1.0)", 'zlib"eNoDAAAAAAE="', '""'),
    *('"\\u202e"', "((((((((", "()", "(0,)", "(1,)", "(0, 1)", "(-1,)", "(1000000000,)", "x", "y"),
    *("axes", "keep_prob", "eps", "shape", "cuts", "data", "init", "start", "stream", "trans_a"),
)


def mutated(seed: Seed, others: tuple[Seed, ...], rng: Random) -> bytes:
    """The seed, changed in one to four places."""
    ways: dict[str, Callable[[], bytes]] = {"bytes": lambda: changed_bytes(seed.data, rng)}
    if seed.kind == "model":
        ways["model"] = lambda: changed_model(seed.data, rng)
    elif seed.kind == "text":
        ways["text"] = lambda: changed_text(seed.data.decode(), rng).encode("utf-8", "replace")
    elif seed.kind == "weights":
        ways["header"] = lambda: changed_header(seed.data, rng)
    elif seed.kind == "run":
        ways["json"] = lambda: dumped(changed_json(json.loads(seed.data), rng), rng)
    way = ways["bytes"] if rng.random() < 0.35 else rng.choice(list(ways.values()))
    data = way()
    if rng.random() < 0.02:
        data = spliced(data, rng.choice(others).data, rng)
    return data


# ---------------------------------------------------------------------- bytes


def changed_bytes(data: bytes, rng: Random) -> bytes:
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        if rng.random() < 0.5:
            at = min(at, rng.randrange(512))  # most decisions depend on the header
        size = rng.choice((1, 1, 1, 2, 4, 8, 64))
        kind = rng.randrange(6)
        if kind == 0 and content:
            content[at % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at : at + size] = rng.randbytes(size)
        elif kind == 2:
            content[at:at] = rng.randbytes(size)
        elif kind == 3:
            del content[at : at + size]
        elif kind == 4:
            content[at:at] = content[at : at + size * 8]
        else:
            number = rng.choice((0, 1, 2**31, 2**32, 2**63, 2**64 - 1, len(data), len(data) - 8))
            content[at : at + 8] = number.to_bytes(8, "little")
    return bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.1 else content)


def spliced(data: bytes, other: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


# ---------------------------------------------------------------------- models


def changed_model(data: bytes, rng: Random) -> bytes:
    """Header, notes or graph changed; length and checksum are right again."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    about = header["__metadata__"]
    for _ in range(rng.choice((1, 1, 1, 2))):
        kind = rng.randrange(8)
        if kind < 4:
            about["graph"] = changed_text(about["graph"], rng)
        elif kind < 6:
            about["model"] = dumped(changed_json(json.loads(about["model"]), rng), rng).decode(
                "utf-8", "replace"
            )
            if not _is_json(about["model"]):
                break
        elif kind == 6:
            header = changed_json(header, rng)
            if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
                break
            about = header["__metadata__"]
            if not isinstance(about.get("graph"), str) or not _is_json(about.get("model")):
                break
        elif body:
            body[rng.randrange(len(body))] = rng.randrange(256)
    return assembled(header, bytes(body), rng)


def changed_header(data: bytes, rng: Random) -> bytes:
    """A safetensors file without a checksum, its header changed and the length right again."""
    length = int.from_bytes(data[:8], "little")
    text = dumped(changed_json(json.loads(data[8 : 8 + length]), rng), rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _is_json(text: Any) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (TypeError, ValueError, RecursionError):
        return False


def assembled(header: Any, body: bytes, rng: Random) -> bytes:
    """A container with the right length and checksum, whatever its header says."""
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"]["sha256"] = BLANK
    text = dumped(header, rng)
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little")
    digest = hashlib.sha256(start + text + body).hexdigest()
    return start + text.replace(BLANK.encode(), digest.encode(), 1) + body


# ---------------------------------------------------------------------- JSON


def changed_json(value: Any, rng: Random) -> Any:
    """A value at a random place replaced, removed, repeated or wrapped."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        kind = rng.randrange(12)
        if kind == 0:
            del value[key]
        elif kind == 1 and isinstance(value, dict):
            value[rng.choice(TEXTS)] = value[key]
        elif kind == 1:
            value.append(value[key])
        elif kind == 2 and isinstance(value, dict):
            value[rng.choice(TEXTS)] = value.pop(key)
        else:
            value[key] = changed_json(value[key], rng)
        return value
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(TEXTS)
    if kind == 5:
        return rng.choice((None, True, False, [], {}, [[]], {"a": {}}))
    return [value] if kind == 6 else nested(rng.choice((2, 40, 3000)))


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def dumped(value: Any, rng: Random) -> bytes:
    """As JSON, sometimes with a key twice."""
    try:
        text = json.dumps(value, separators=(",", ":"))
    except RecursionError:
        text = "[" * 5000
    if rng.random() < 0.03 and "{" in text:
        at = rng.choice([m.end() for m in re.finditer(r"\{", text)])
        key = re.match(r'"(?:[^"\\]|\\.)*"', text[at:])
        if key:
            text = f"{text[:at]}{key[0]}:1,{text[at:]}"
    return text.encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------------- text

_TOKENS = re.compile(r'zlib"[^"]*"|"(?:[^"\\]|\\.)*"|[A-Za-z_][\w./]*|-?[\d.]+(?:e-?\d+)?|\S')


def changed_text(text: str, rng: Random) -> str:
    """Words or lines of a graph replaced, removed, repeated or exchanged."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 1, 1, 2))):
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(10)
        if kind == 0:
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 1:
            lines.insert(i, lines[j])
        elif kind == 2 and len(lines) > 1:
            del lines[i]
        else:
            lines[i] = _changed_line(lines[i], lines[j], rng)
    return "\n".join(lines)


def _changed_line(line: str, other: str, rng: Random) -> str:
    tokens = list(_TOKENS.finditer(line))
    if not tokens:
        return rng.choice(WORDS)
    token = rng.choice(tokens)
    found = [m[0] for m in _TOKENS.finditer(other)]
    pool = rng.randrange(4)
    if pool == 0 and found:
        word = rng.choice(found)
    elif pool == 1:
        word = str(rng.choice(NUMBERS))
    elif pool == 2:
        word = ""
    else:
        word = rng.choice(WORDS)
    return f"{line[: token.start()]}{word}{line[token.end() :]}"
