"""Thirteen modules of PyTorch, as people write them, with small sizes, and a batch of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.extras import needs

torch = needs("torch")
torchvision = needs("torchvision")
nn, F = torch.nn, torch.nn.functional
Module: Any = nn.Module
Tensor = Any

ROWS, LETTERS, LENGTH, WIDTH = 4, 11, 6, 8


class Mlp(Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Transformer(Module):
    """PyTorch's own layers, with a table of positions that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(LETTERS, WIDTH)
        self.register_buffer(
            "places", torch.sin(torch.arange(LENGTH * WIDTH) * 0.7).view(-1, WIDTH)
        )
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)
        self.enc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.enc(self.letters(ids) + self.places).mean(dim=1))


class Cnn(Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6 * 3 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.conv1(x)), 2)
        h = F.relu(self.norm(self.conv2(h)))
        return self.fc(torch.flatten(F.pad(h, (0, 1, 0, 1)), 1))


class UNet(Module):
    def __init__(self) -> None:
        super().__init__()
        self.inc, self.down = self.block(1, 4), self.block(4, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.out, self.last = self.block(8, 4), nn.Conv2d(4, 1, 1)

    @staticmethod
    def block(before: int, after: int) -> Any:
        conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        wide = self.inc(x)
        deep = self.down(F.max_pool2d(wide, 2))
        return self.last(self.out(torch.cat([wide, self.up(deep)], dim=1)))


class Recurrent(Module):
    def __init__(self, kind: str, layers: int) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(5, 7, num_layers=layers, batch_first=True)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Gpt(Module):
    """A block with a causal mask as a buffer; the head has the letters' weight."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(LETTERS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.ln_1, self.ln_2, self.ln_f = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 32), nn.GELU(approximate="tanh"), nn.Linear(32, WIDTH)
        )
        self.head = nn.Linear(WIDTH, LETTERS, bias=False)
        self.head.weight = self.wte.weight
        self.register_buffer("bias", torch.tril(torch.ones(LENGTH, LENGTH)).view(1, 1, LENGTH, -1))

    def forward(self, ids: Tensor) -> Tensor:
        rows, length = ids.size()
        h = self.wte(ids) + self.wpe(torch.arange(length))
        q, k, v = self.qkv(self.ln_1(h)).split(WIDTH, dim=2)
        q, k, v = (x.view(rows, length, 2, WIDTH // 2).transpose(1, 2) for x in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) * (WIDTH // 2) ** -0.5
        scores = scores.masked_fill(self.bias[:, :, :length, :length] == 0, float("-inf"))
        mixed = F.softmax(scores, dim=-1) @ v
        h = h + self.proj(mixed.transpose(1, 2).contiguous().view(rows, length, WIDTH))
        return self.head(self.ln_f(h + self.mlp(self.ln_2(h)))).transpose(1, 2)


class Bert(Module):
    """Token types and positions, and a mask of the padding that grows with the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(LETTERS, WIDTH, padding_idx=0), nn.Embedding(2, WIDTH)
        self.places, self.norm = nn.Embedding(LENGTH, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(LENGTH).expand((1, -1)))
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.dense, self.after = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.pooler, self.classifier = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        rows, length = ids.shape
        places = self.places(self.position_ids[:, :length])
        h = self.norm(self.words(ids) + places + self.types(torch.zeros_like(ids)))
        row, key = torch.arange(rows)[:, None, None, None], torch.arange(length)[None, None, None]
        seen = mask.bool()[row, key].expand(rows, 1, length, length)  # as transformers does
        parts = (layer(h) for layer in (self.query, self.key, self.value))
        q, k, v = (x.view(rows, -1, 2, WIDTH // 2).transpose(1, 2) for x in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        mixed = mixed.transpose(1, 2).reshape(rows, length, WIDTH)
        h = self.after(h + self.dense(mixed))
        return self.classifier(torch.tanh(self.pooler(h[:, 0])))


class Vit(Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.1)
        self.pos = nn.Parameter(torch.randn(1, 5, WIDTH) * 0.1)
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), h], dim=1) + self.pos
        n = self.norm(h)
        return self.head((h + self.attention(n, n, n, need_weights=False)[0])[:, 0])


class Vae(Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mu, self.logvar = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 2)
        self.dec = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.tanh(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.dec(z), mu, logvar


class Siamese(Module):
    """One tower for both inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_similarity(self.tower(a), self.tower(b), dim=1)


class Gan(Module):
    """Both nets, and what the discriminator says of what is real and of what is generated."""

    def __init__(self) -> None:
        super().__init__()
        self.G = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 6), nn.Tanh())
        self.D = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def forward(self, z: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fake = self.G(z)
        return self.D(real), self.D(fake.detach()), self.D(fake)


class Made(NamedTuple):
    """A module, and the shapes of its inputs: of floats, or of whole numbers below a limit."""

    module: Callable[[], Any]
    inputs: dict[str, tuple[tuple[int, ...], int]]
    outputs: tuple[str, ...] = ("out",)


IMAGE, IDS = ((1, 8, 8), 0), ((LENGTH,), LETTERS)
MODULES: dict[str, Made] = {
    "mlp": Made(Mlp, {"x": ((6,), 0)}),
    "transformer": Made(Transformer, {"x": IDS}),
    "cnn": Made(Cnn, {"x": IMAGE}),
    "resnet18": Made(lambda: torchvision.models.resnet18(num_classes=3), {"x": ((3, 32, 32), 0)}),
    "unet": Made(UNet, {"x": IMAGE}),
    "gru": Made(lambda: Recurrent("GRU", 1), {"x": ((4, 5), 0)}),
    "lstm": Made(lambda: Recurrent("LSTM", 2), {"x": ((4, 5), 0)}),
    "gpt": Made(Gpt, {"x": IDS}),
    "bert": Made(Bert, {"x": IDS, "mask": ((LENGTH,), 2)}),
    "vit": Made(Vit, {"x": IMAGE}),
    "vae": Made(Vae, {"x": ((6,), 0)}, ("out", "mu", "logvar")),
    "siamese": Made(Siamese, {"a": ((6,), 0), "b": ((6,), 0)}),
    "gan": Made(Gan, {"z": ((3,), 0), "real": ((6,), 0)}, ("real_score", "fake_score", "score")),
}
