"""Encoders of sentences: networks of transformers, and how one row is made of what they give for each token."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nearfar.batch import split
from nearfar.data.labels import some
from nearfar.distributed import local, share, world
from nearfar.errors import UserError
from nearfar.losses.classification import single
from nearfar.method import Encoder, Traced
from nearfar.modalities.text.settings import Pooler, insist_installed, sizes, transformer_folder
from nearfar.modalities.text.tokenizer import Tokenizer, Tokens
from nearfar.modalities.text.writer import SpanRestorer, Writer
from nearfar.nn.captioner import Captioner
from nearfar.precision import network

BUCKET = 32
"""Sentences, at least, that pass the network together where those of a batch differ in length."""

WRITING = ("t5", "mt5", "umt5")
"""Networks of transformers with encoder and decoder that can be used."""

ATTENTION = "sdpa"
"""The fused form, in which no matrix of token by token is kept."""


def pool(states: Sequence[Tensor], mask: Tensor, pooler: Pooler) -> Tensor:
    """One row for each sentence: N x H, of what a network gives for its tokens (SimCSE, arXiv 2104.08821).

    states: what each layer gives, N x L x H, behind what the embeddings give, as `hidden_states` of transformers.
    mask: N x L, where there is a token.  pooler: cls and cls_before_pooler take the first token; avg takes the mean
    over the tokens of the last layer, avg_top2 of the last two layers, avg_first_last of the first and the last layer.
    """
    if pooler in ("cls", "cls_before_pooler"):
        return states[-1][:, 0]
    mean = {
        "avg": lambda: states[-1],
        "avg_top2": lambda: (states[-1] + states[-2]) / 2,
        "avg_first_last": lambda: (states[1] + states[-1]) / 2,
    }[pooler]()
    weight = mask.to(mean.dtype)[..., None]
    return (mean * weight).sum(1) / weight.sum(1)


def buckets(length: Tensor) -> list[Tensor]:
    """The positions of sentences, in parts of nearly equal length, for less padding. length: N, int64."""
    order = length.argsort(descending=True, stable=True)
    parts, rest = [], order.tolist()
    known = length.tolist()
    while rest:
        # A part ends where the next sentence would be padded by a quarter, once it is large enough.
        size = next((k for k in range(BUCKET, len(rest)) if 5 * known[rest[k]] < 4 * known[rest[0]]), len(rest))
        size = size if len(rest) - size >= BUCKET else len(rest)
        parts.append(torch.tensor(rest[:size]))
        rest = rest[size:]
    return parts


class TextEncoder(Encoder):
    """A network of transformers for sentences: Tokens of N -> N x dim. Of one with a decoder besides, such as T5, the
    states of the encoder represent a sentence, and the decoder is trained only where a method asks for what writes.

    config: of the network, in plain JSON types.  tokenizer: that makes its tokens.  length: those of a sentence that it
    sees.  pooler: see `pool`; cls has a linear layer and tanh behind the first token, which stay after training.
    """

    def __init__(self, name: str, config: dict[str, Any], tokenizer: Tokenizer, pooler: Pooler, length: int) -> None:
        super().__init__()
        self.net = _network(config)
        self.writes = bool(self.net.config.is_encoder_decoder)
        if self.writes and pooler in ("cls", "cls_before_pooler"):
            raise UserError(
                f"--pooler {pooler}: {name!r} has no first token that stands for a sentence: give --pooler avg"
            )
        self._train_decoder(False)
        self.dim = int(self.net.config.hidden_size)
        self.dense = nn.Linear(self.dim, self.dim) if pooler == "cls" else None
        self.tokenizer, self.length = tokenizer, length
        self.pooler: Pooler = pooler
        self.pad = self.net.config.pad_token_id or 0
        self.spec = {
            "kind": "text",
            "name": name,
            "config": config,
            "pooler": pooler,
            "length": length,
            "tokenizer": tokenizer.spec(),
        }

    def forward(self, view: Tokens) -> Tensor:
        """Sentences of like length pass together, so that little is computed for padding."""
        if view.other is not None and view.share is not None:
            return self._mixed(view, view.other, view.share)
        parts = buckets(view.length)
        if len(parts) == 1:
            return self._encode(view.ids, view.length)
        order = torch.cat(parts).to(view.ids.device)
        rows = [self._encode(view.ids[part], view.length[part]) for part in order.split(list(map(len, parts)))]
        return torch.cat(rows)[order.argsort()]

    @property
    def reads(self) -> Any:
        """The network that reads sentences, without a decoder."""
        return self.net.get_encoder() if self.writes else self.net

    def _encode(self, ids: Tensor, length: Tensor) -> Tensor:
        states = self.states(ids, length)
        mask = torch.arange(states[-1].shape[1], device=ids.device) < length[:, None]
        row = pool(states, mask, self.pooler)
        return row if self.dense is None else self.dense(row).tanh()

    def states(self, ids: Tensor, length: Tensor) -> Sequence[Tensor]:
        """What the layers give, of which the last is the last: N x L x H, L being the longest of these sentences."""
        ids = ids[:, : int(length.max())]
        mask = torch.arange(ids.shape[1], device=ids.device) < length[:, None]
        layered = self.pooler in ("avg_top2", "avg_first_last")
        full = {} if bool(mask.all()) else {"attention_mask": mask.long()}
        out = self.reads(input_ids=ids.masked_fill(~mask, self.pad), output_hidden_states=layered, **full)
        return out.hidden_states if layered else [out.last_hidden_state]

    def _mixed(self, view: Tokens, other: Tokens, share: Tensor) -> Tensor:
        """Of sentences whose words' embeddings are mixed, place by place; behind its end a sentence adds nothing."""
        words = self.net.get_input_embeddings()
        width = int(torch.maximum(view.length, other.length).max())
        mask, rows = torch.zeros(len(share), width, dtype=torch.bool, device=share.device), 0
        for part, weight in ((view, share), (other, 1 - share)):
            ids = nn.functional.pad(part.ids[:, :width], (0, max(0, width - part.ids.shape[1])))
            own = torch.arange(width, device=ids.device) < part.length[:, None]
            mask |= own
            rows = rows + weight[:, None, None] * words(ids.masked_fill(~own, self.pad)) * own[..., None]
        layered = self.pooler in ("avg_top2", "avg_first_last")
        out = self.reads(inputs_embeds=rows, attention_mask=mask.long(), output_hidden_states=layered)
        row = pool(out.hidden_states if layered else [out.last_hidden_state], mask, self.pooler)
        return row if self.dense is None else self.dense(row).tanh()

    def looked_at(self) -> nn.Module:
        """The table of embeddings: N x L x H."""
        return self.reads.get_input_embeddings()

    def restorer(self) -> Restorer | SpanRestorer:
        if not self.writes:
            return Restorer(self)
        self._train_decoder(True)
        return SpanRestorer(self)

    def writer(self) -> Writer:
        if not self.writes:
            return super().writer()  # pyright: ignore[reportReturnType]
        self._train_decoder(True)
        return Writer(self)

    def _train_decoder(self, trained: bool) -> None:
        """Of many processes, all wait for a gradient of what is trained."""
        reads = {id(p) for p in self.reads.parameters()}
        for p in self.net.parameters():
            if id(p) not in reads:
                p.requires_grad_(trained)

    def captioner(self, reads: int, *, width: int = 128, layers: int = 2) -> Captioner:
        known = self.tokenizer
        return Captioner(known.size, reads, self.length, skip=len(known.first), width=width, layers=layers)

    def example(self, n: int, generator: torch.Generator | None = None) -> Tokens:
        """Sentences of random tokens, as long as can be."""
        return example(self.spec | {"size": self.tokenizer.size}, n, generator)

    def traced(self) -> Traced:
        """Of the ids of tokens and where there are any, N x L each, for any N and L."""

        def views(draw: torch.Generator) -> list[Tokens]:
            made = []
            for n, width in ((3, self.length), (1, self.length), (5, max(2, self.length // 2))):
                length = torch.randint(1, width + 1, (n,), generator=draw)
                length[0] = width
                made.append(Tokens(torch.randint(self.tokenizer.size, (n, width), generator=draw), length))
            return made

        axes = {0: "batch", 1: "tokens"}
        names = {"input_ids": axes, "attention_mask": axes}
        return Traced(_Rows(self), names, lambda view: (view.ids, view.mask.long()), views)

    def publish(self, folder: Path, behind: nn.Linear | None = None) -> list[Path]:
        from nearfar.modalities.text.publish import publish

        encoder = copy.deepcopy(self).to("cpu", torch.float32).eval()
        return publish(encoder, folder, behind and copy.deepcopy(behind).to("cpu", torch.float32))

    def preparation(self) -> dict[str, Any]:
        return {"layout": "input_ids and attention_mask, of the tokenizer of its spec", "length": self.length}


class _Rows(nn.Module):
    """An encoder on tensors: the ids of tokens, and where there are any, N x L each -> N x dim."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        own = self.encoder
        out = own.net(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        row = pool(out.hidden_states, mask, own.pooler)
        return row if own.dense is None else own.dense(row).tanh()


class Restorer(nn.Module):
    """Masked language modeling (arXiv 1810.04805): a head that names the tokens that were hidden from an encoder.

    Of the tokens, those at the ends apart, 15 % are to be named: of these 80 % are hidden, 10 % are others, 10 % stay.
    The last layer is the table of the encoder's own embeddings, and a bias.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        tokenizer = encoder.tokenizer
        if tokenizer.mask is None:
            raise UserError("masked language modeling takes a tokenizer with a token such as [MASK], and it has none")
        table = encoder.net.get_input_embeddings().weight
        self.layers = nn.Sequential(
            nn.Linear(encoder.dim, table.shape[1]), nn.GELU(), nn.LayerNorm(table.shape[1], eps=1e-12)
        )
        self.bias = nn.Parameter(torch.zeros(len(table)))
        self.hidden, self.size = tokenizer.mask, tokenizer.size
        self.kept = [*tokenizer.first, *tokenizer.last]

    def forward(self, encoder: TextEncoder, view: Tokens, generator: torch.Generator, most: int = 0) -> Tensor:
        """This rank's share of the mean, over the hidden tokens of all ranks, of minus the log-probability.

        most: sentences that pass at a time, and once more in the backward pass; 0 for all at once.
        """
        ids, which = self.hide(view, local(torch.rand(world() * len(view.ids), 3, encoder.length, generator=generator)))
        cost = self._costs(encoder, Tokens(ids, view.length), view.ids, which, most)
        return share(cost, torch.ones_like(cost, dtype=torch.bool))

    def hide(self, view: Tokens, chance: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of which some are hidden or exchanged, and which are to be named: N x L each.

        chance: N x 3 x at least L, uniform numbers.
        """
        chosen, how, other = chance.to(view.ids.device)[:, :, : view.ids.shape[1]].unbind(1)
        ends = torch.isin(view.ids, view.ids.new_tensor(self.kept))
        which = (chosen < 0.15) & view.mask & ~ends
        ids = torch.where(which & (how < 0.8), self.hidden, view.ids)
        ids = torch.where(which & (how >= 0.9), (other * self.size).long(), ids)
        return ids, which

    @network
    def _costs(self, encoder: TextEncoder, shown: Tokens, ids: Tensor, which: Tensor, most: int) -> Tensor:
        """Of each hidden token minus the log-probability, a part of the sentences after the other."""
        if not 0 < most < len(ids):
            return self._cost(encoder, shown, ids, which)
        count = -(-len(ids) // most)
        parts = zip(split(shown, count), split(ids, count), split(which, count), strict=True)
        return torch.cat([checkpoint(self._cost, encoder, *part, use_reentrant=False) for part in parts])

    def _cost(self, encoder: TextEncoder, shown: Tokens, ids: Tensor, which: Tensor) -> Tensor:
        states = encoder.states(shown.ids, shown.length)[-1]  # N x L x H
        table = encoder.net.get_input_embeddings().weight
        logits = nn.functional.linear(self.layers(states[which[:, : states.shape[1]]]), table, self.bias)
        return nn.functional.cross_entropy(single(logits), ids[which], reduction="none")


def example(spec: dict[str, Any], n: int, generator: torch.Generator | None = None) -> Tokens:
    """Sentences of random tokens for an encoder with that spec."""
    size = spec.get("size") or Tokenizer.from_spec(spec["tokenizer"]).size
    ids = torch.randint(size, (n, spec["length"]), generator=generator)
    return Tokens(ids, torch.full((n,), spec["length"]))


def from_spec(spec: dict[str, Any]) -> TextEncoder:
    """The encoder that `TextEncoder.spec` describes, with random weights."""
    tokenizer = Tokenizer.from_spec(spec["tokenizer"])
    return TextEncoder(spec["name"], spec["config"], tokenizer, spec["pooler"], spec["length"])


def fresh(name: str, tokenizer: Tokenizer, *, pooler: Pooler, length: int, dropout: float) -> TextEncoder:
    """A BERT (arXiv 1810.04805) or T5 (1910.10683) with random weights, of the layers and width that its name tells."""
    known = sizes(name)
    if known is None:
        raise UserError(f"{name!r} is no network with random weights")
    layers, width = known
    heads = max(1, width // 64)
    if name.startswith("t5"):
        config = {
            "model_type": "t5",
            "vocab_size": tokenizer.size,
            "num_layers": layers,
            "d_model": width,
            "num_heads": heads,
            "d_kv": width // heads,
            "d_ff": 4 * width,
            "dropout_rate": dropout,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
            "eos_token_id": tokenizer.last[-1],
        }
        return TextEncoder(name, config, tokenizer, pooler, length)
    config = {
        "model_type": "bert",
        "vocab_size": tokenizer.size,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": max(512, length),
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    return TextEncoder(name, config, tokenizer, pooler, length)


def from_folder(name: str, tokenizer: Tokenizer, *, pooler: Pooler, length: int) -> TextEncoder:
    """The network of a folder of transformers or sentence-transformers, with its weights. Nothing is downloaded.

    Raises ValueError where it cannot be read, takes fewer tokens, or has another vocabulary.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

    folder = transformer_folder(Path(name))
    try:
        known = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--encoder {name!r}: its config.json cannot be used ({error})") from error
    if known.is_encoder_decoder and known.model_type not in WRITING:
        raise UserError(
            f"--encoder {name!r} is a {known.model_type} of encoder and decoder: of these only T5 can be used"
        )
    config: dict[str, Any] = json.loads(known.to_json_string())
    for field in ("architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        config.pop(field, None)
    most = getattr(known, "max_position_embeddings", None) or length
    most -= (known.pad_token_id or 0) + 1 if known.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    if length > most:
        raise UserError(f"--length {length}: the network of {name!r} takes {most} tokens at most")
    if tokenizer.size > known.vocab_size:
        raise UserError(
            f"the tokenizer knows {tokenizer.size:,} tokens and the network of {name!r} {known.vocab_size:,}: give the "
            "tokenizer that belongs to it"
        )
    encoder = TextEncoder(name, config, tokenizer, pooler, length)
    own = encoder.net.state_dict()
    try:
        with quiet():
            given, loading = (AutoModelForSeq2SeqLM if known.is_encoder_decoder else AutoModel).from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"--encoder {name!r}: its weights cannot be read ({error})") from error
    if lost := sorted(own.keys() & loading["missing_keys"]):
        raise UserError(
            f"--encoder {name!r}: its weights lack {len(lost)} of the {len(own)} of the network, which would begin at "
            f"random ({some(lost)}): give the folder that they were saved in whole"
        )
    encoder.net.load_state_dict({key: value for key, value in given.state_dict().items() if key in own})
    head = getattr(getattr(given, "pooler", None), "dense", None)
    if encoder.dense is not None and head is not None:  # the layer that SimCSE trains stands where BERT's pooler does
        encoder.dense.load_state_dict(head.state_dict())
    return encoder


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers says and draws while it reads and writes: what is amiss is found by what calls it."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _network(config: dict[str, Any]) -> Any:
    """A network of transformers with random weights, without a layer of its own behind the tokens."""
    insist_installed()
    if config["model_type"] == "bert":  # importing what knows all networks takes as long again
        from transformers.models.bert.configuration_bert import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        known = BertConfig(**{key: value for key, value in config.items() if key != "model_type"})
        net = BertModel._from_config(known, attn_implementation=ATTENTION, add_pooling_layer=False)
    elif config["model_type"] in WRITING:
        from transformers import AutoConfig, AutoModelForSeq2SeqLM

        net = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**config))
    else:
        from transformers import AutoConfig, AutoModel

        net = AutoModel.from_config(AutoConfig.for_model(**config), attn_implementation=ATTENTION)
        if getattr(net, "pooler", None) is not None:
            net.pooler = None
    return net
