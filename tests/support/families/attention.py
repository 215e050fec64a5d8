"""Generators of tokens and of attention."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.generators import Case

from .parts import Mlp, case


class Block(nn.Module):
    """A transformer's block, its norms first; tokens (B, L, C), or (L, B, C)."""

    def __init__(self, width: int, heads: int, batch_first: bool):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = nn.MultiheadAttention(width, heads, batch_first=batch_first), Mlp(width, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class TransGan(nn.Module):
    """TransGAN (Jiang et al., 2021): tokens, made larger by pixel shuffle."""

    def __init__(self, batch_first: bool):
        super().__init__()
        self.batch_first = batch_first
        self.first = nn.Linear(5, 4 * 16)
        self.position = nn.Parameter(torch.zeros(1, 4, 16))
        self.block, self.second = Block(16, 2, batch_first), Block(4, 1, True)
        self.to_rgb = nn.Conv2d(4, 3, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.first(z).view(-1, 4, 16) + self.position
        h = self.block(h) if self.batch_first else self.block(h.transpose(0, 1)).transpose(0, 1)
        h = F.pixel_shuffle(h.permute(0, 2, 1).view(-1, 16, 2, 2), 2)
        h = self.second(h.flatten(2).transpose(1, 2))
        return self.to_rgb(h.transpose(1, 2).reshape(-1, 4, 4, 4))


class Encoder(nn.Module):
    """PyTorch's own encoder layers over learned queries and the latent as a token; a time series comes out."""

    def __init__(self, norm_first: bool):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 6))
        self.expand, self.position = nn.Linear(5, 7 * 6), nn.Parameter(torch.zeros(8, 6))
        layer = nn.TransformerEncoderLayer(
            6, 3, 9, activation="gelu", batch_first=True, norm_first=norm_first, dropout=0.1
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        tokens = self.expand(z).view(-1, 7, 6)
        h = torch.cat([self.token.expand(z.shape[0], 1, 6), tokens], dim=1) + self.position
        h = self.encoder(h)[:, 1:]
        return self.last(h.reshape(h.shape[0], 1, 7, 6).permute(0, 3, 1, 2))


class Queries(nn.Module):
    """Learned queries, one for each position, that look at tokens made of the latent (cross attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.queries = nn.Linear(6, 3 * 8), nn.Parameter(torch.zeros(1, 12, 8))
        layer = nn.TransformerDecoderLayer(8, 2, 6, batch_first=True)
        self.decoder, self.last = nn.TransformerDecoder(layer, 1), nn.Linear(8, 3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.decoder(self.queries.expand(len(z), -1, -1), self.tokens(z).reshape(-1, 3, 8))
        return torch.tanh(self.last(h)).mT.reshape(-1, 3, 3, 4)


class Heads(nn.Module):
    """Attention by einsum over heads, with a causal mask, or a learned bias of relative positions."""

    def __init__(self, width: int, heads: int, tokens: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.table = nn.Parameter(torch.zeros(2 * tokens - 1, heads))
        places = torch.arange(tokens)
        self.register_buffer("relative", places[:, None] - places[None] + tokens - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(c // self.heads)
        scores = scores + self.table[self.relative].permute(2, 0, 1)
        if self.causal:
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1), -math.inf)
        made = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
        return self.out(made.permute(0, 2, 1, 3).reshape(b, n, c))


class Einsum(nn.Module):
    def __init__(self, causal: bool):
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(5, 6 * 4), Heads(4, 2, 6, causal), nn.Linear(4, 4)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.first(z).unflatten(1, (6, 4))
        h = self.last(h + self.attention(h))  # 2 x 3 tokens of 2 x 2 pixels
        return torch.tanh(torch.einsum("nhwpq->nhpwq", h.reshape(-1, 2, 3, 2, 2))).reshape(-1, 1, 4, 6)


class Windows(nn.Module):
    """Cosine attention in shifted windows of 2 x 2 (Swin v2, Liu et al., 2022), its scale learned as a logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.qkv, self.norm = nn.Linear(5, 3 * 16), nn.Linear(3, 9), nn.LayerNorm(3)
        self.scale = nn.Parameter(torch.zeros(1, 1, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.first(z).view(-1, 4, 4, 3)
        h = torch.roll(x, shifts=(-1, -1), dims=(1, 2))
        h = h.view(-1, 2, 2, 2, 2, 3).transpose(2, 3).reshape(-1, 4, 4, 3)  # windows, tokens of each
        q, k, v = self.qkv(h).chunk(3, -1)
        scale = torch.clamp(self.scale, max=math.log(100.0)).exp()
        h = ((F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)) * scale).softmax(dim=-1) @ v
        h = h.view(-1, 2, 2, 2, 2, 3).transpose(2, 3).reshape(-1, 4, 4, 3)
        h = torch.roll(h, shifts=(1, 1), dims=(1, 2))
        return torch.tanh(x + self.norm(h)).permute(0, 3, 1, 2)


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al., 2021): over tokens, then over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6 * 4), nn.Linear(4, 12)
        self.tokens, self.channels = Mlp(6, 5, "tanh"), Mlp(4, 8)
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.first(z).reshape(-1, 6, 4)
        h = h + self.tokens(self.norm1(h).transpose(1, 2)).transpose(1, 2)
        h = self.last(h + self.channels(self.norm2(h)))
        h = h.reshape(-1, 2, 3, 2, 2, 3)  # patches (2, 3) of 2 x 2 pixels of 3 channels
        return torch.tanh(h.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, 4, 6))


def families() -> list[Case]:
    return [
        case("TransGAN", 60, (5,), (3, 4, 4), TransGan(batch_first=True)),
        case("TransGAN, tokens first", 61, (5,), (3, 4, 4), TransGan(batch_first=False)),
        case("transformer of a time series", 62, (5,), (2, 1, 7), Encoder(norm_first=True)),
        case("transformer, norms last", 63, (5,), (2, 1, 7), Encoder(norm_first=False)),
        case("learned queries", 64, (6,), (3, 3, 4), Queries()),
        case("einsum, causal", 65, (5,), (1, 4, 6), Einsum(causal=True)),
        case("einsum, relative positions", 66, (5,), (1, 4, 6), Einsum(causal=False)),
        case("shifted windows", 67, (5,), (3, 4, 4), Windows()),
        case("MLP-Mixer", 68, (6,), (3, 4, 6), Mixer()),
    ]
