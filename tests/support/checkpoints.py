"""Whisper checkpoints with random weights, and what `transformers` decodes with them.

The shapes are the published models' own: layers, heads, mel bins, order of the special tokens.
Only widths and vocabulary are small, so that one is made and decoded in about a second. The
weights are scaled so that greedy decoding behaves like a trained model's: tokens vary, depend on
the audio, end at some point, and the best token leads by more than rounding.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

# It has hints about every option that generation is given.
transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

NUM_TEXT_TOKENS: Final = 400
NUM_TIMESTAMPS: Final = 1501
NUM_FRAMES: Final = 3000

# A few of each kind; the published lists are 99 long, and large-v3's ends in `yue`.
LANGUAGES: Final = ("en", "zh", "de", "es")
LANGUAGES_V3: Final = (*LANGUAGES, "yue")

_TEXT: Final = """
The starlings turn in the air before they settle for the night. Nobody leads them, and nobody is
left behind: each bird watches the seven that are nearest. Thank you for listening. What did you
say? I said that it's raining again, so we won't go out. One, two, three, four, five, six, seven,
eight, nine, ten. Es regnet schon wieder. 今日は雨です。 你好世界。 ¿Qué hora es?
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a published model is kept."""

    num_mels: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    languages: tuple[str, ...] = LANGUAGES
    is_multilingual: bool = True


SHAPES: Final = {
    "tiny.en": Shape(80, 4, 4, 6, is_multilingual=False),
    "base": Shape(80, 6, 6, 8),
    "small": Shape(80, 12, 12, 12),
    "medium": Shape(80, 24, 24, 16),
    "large-v3": Shape(128, 32, 32, 20, LANGUAGES_V3),
    "large-v3-turbo": Shape(128, 32, 4, 20, LANGUAGES_V3),
    "distil-large-v3": Shape(128, 32, 2, 20, LANGUAGES_V3),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One greedy decode: `tokens` follow `prefix` and leave out the end of text.

    `margins` are the logits by which each chosen token, the end of text included, leads.
    """

    prefix: list[int]
    tokens: list[int]
    ended: bool
    margins: list[float]


@contextmanager
def one_thread() -> Iterator[None]:
    """The operations are tiny: a second thread that others keep busy is only waited for."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@one_thread()
def make_checkpoint(
    directory: Path,
    shape: str,
    *,
    seed: int = 0,
    head_dim: int | None = None,
    encoder_layers: int | None = None,
) -> Path:
    """Write a Hugging Face checkpoint of a published `shape` (a key of SHAPES); returns its path.

    `encoder_layers` below the real number makes the large shapes quick to run many times.
    """
    published = SHAPES[shape]
    head_dim = head_dim or (8 if published.heads <= 8 else 4)
    specials = _special_tokens(published.languages)
    first = NUM_TEXT_TOKENS
    token_of = {special: first + i for i, special in enumerate(specials)}
    eot = token_of["<|endoftext|>"]
    config = transformers.WhisperConfig(
        vocab_size=first + len(specials),
        num_mel_bins=published.num_mels,
        encoder_layers=encoder_layers or published.encoder_layers,
        encoder_attention_heads=published.heads,
        decoder_layers=published.decoder_layers,
        decoder_attention_heads=published.heads,
        d_model=published.heads * head_dim,
        encoder_ffn_dim=4 * published.heads * head_dim,
        decoder_ffn_dim=4 * published.heads * head_dim,
        bos_token_id=eot,
        eos_token_id=eot,
        pad_token_id=eot,
        decoder_start_token_id=token_of["<|startoftranscript|>"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    make_tokenizer(directory, shape)
    model: Any = transformers.WhisperForConditionalGeneration(config)
    _fill(model, token_of, len(published.languages), seed)
    model.generation_config = _generation_config(published, token_of, _train_text_tokens())
    model.save_pretrained(directory)
    extractor: Any = transformers.WhisperFeatureExtractor
    extractor(feature_size=published.num_mels).save_pretrained(directory)
    return directory


def make_tokenizer(directory: Path, shape: str) -> Path:
    """Write the tokenizer of a checkpoint of that shape alone."""
    directory.mkdir(parents=True, exist_ok=True)
    specials = _special_tokens(SHAPES[shape].languages)
    text = _train_text_tokens()
    merges = [tuple(pair) for pair in json.loads(text.to_str())["model"]["merges"]]
    tokenizer = transformers.WhisperTokenizer(vocab=text.get_vocab(), merges=merges)
    tokenizer.add_tokens(specials[:-NUM_TIMESTAMPS], special_tokens=True)
    tokenizer.add_tokens(specials[-NUM_TIMESTAMPS:])
    tokenizer.save_pretrained(directory)
    return directory


def openai_pt(directory: Path) -> Path:
    """Write the weights of a Hugging Face `directory` as OpenAI would, to `model.pt` in it."""
    model = reference_model(directory)
    config = model.config
    dims = {
        "n_mels": config.num_mel_bins,
        "n_vocab": config.vocab_size,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }
    state = {_openai_name(name): tensor for name, tensor in model.model.state_dict().items()}
    path = directory / "model.pt"
    torch.save({"dims": dims, "model_state_dict": state}, path)
    return path


@lru_cache(maxsize=4)
def older_files(directory: Path, target: Path) -> Path:
    """The same vocabulary as vocab.json, merges.txt and added_tokens.json."""
    document = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    added = {token["content"]: token["id"] for token in document["added_tokens"]}
    # The first repositories have no timestamps in it, and the older name of one token.
    added = {name: i for name, i in added.items() if not name[2].isdigit()}
    added["<|nocaptions|>"] = added.pop("<|nospeech|>")
    vocab = document["model"]["vocab"] | {"<|endoftext|>": added.pop("<|endoftext|>")}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in document["model"]["merges"])]
    (target / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    (target / "merges.txt").write_text("\n".join(merges) + "\n", "utf-8")
    (target / "added_tokens.json").write_text(json.dumps(added), "utf-8")
    return target


def reference_model(directory: Path) -> Any:
    """The checkpoint as `transformers` loads it, in float32."""
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
        directory, dtype=torch.float32
    )
    return model.eval()


def make_features(num: int, num_mels: int, *, seed: int = 0) -> Tensor:
    """`num` different windows of log-mel features [num, num_mels, 3000] float32.

    Bands that come and go as in speech, then silence, in the range that Whisper's scaling gives.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num, num_mels // 4, NUM_FRAMES // 20, generator=generator)
    smooth = torch.nn.functional.interpolate(
        coarse[:, None], size=(num_mels, NUM_FRAMES), mode="bilinear"
    )[:, 0]
    features = 0.5 * smooth + 0.1 * torch.randn(smooth.shape, generator=generator)
    for row, end in enumerate(torch.randint(300, NUM_FRAMES, (num,), generator=generator)):
        features[row, :, end:] = -0.8
    return features.clamp(-0.8, 1.2)


@one_thread()
def reference_decode(
    directory: Path,
    features: Tensor,
    *,
    language: str | None = None,
    task: str | None = None,
    timestamps: bool = False,
    prompt_ids: Sequence[int] | None = None,
    max_new_tokens: int = 40,
) -> list[Reference]:
    """What `transformers` decodes greedily from each window, alone: the tokens as generated.

    Its public `generate` splits what it generated at timestamps, drops an unfinished last span
    and goes on behind it; `force_unique_generate_call` is its own switch for the one raw call.
    """
    model = reference_model(directory)
    results = []
    for window in features:
        output = model.generate(
            window[None],
            language=language,
            task=task,
            return_timestamps=timestamps,
            prompt_ids=None if prompt_ids is None else torch.tensor(prompt_ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            force_unique_generate_call=True,
            return_dict_in_generate=True,
            output_scores=True,
        )
        sequence = output.sequences[0].tolist()
        num_generated = len(output.scores)
        tokens = sequence[-num_generated:]
        best = [scores[0].topk(2).values for scores in output.scores]
        ended = tokens[-1] == model.generation_config.eos_token_id
        results.append(
            Reference(
                prefix=sequence[:-num_generated],
                tokens=tokens[:-1] if ended else tokens,
                ended=ended,
                margins=[float(first - second) for first, second in best],
            )
        )
    return results


def reference_generate(directory: Path, features: Tensor, **options: Any) -> list[list[int]]:
    """The tokens alone of `reference_decode`, with the same options."""
    return [reference.tokens for reference in reference_decode(directory, features, **options)]


def _special_tokens(languages: Sequence[str]) -> list[str]:
    return [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in languages),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
        *("<|nospeech|>", "<|notimestamps|>"),
        *(f"<|{i * 0.02:.2f}|>" for i in range(NUM_TIMESTAMPS)),
    ]


@lru_cache(maxsize=1)
def _train_text_tokens() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TEXT_TOKENS,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_TEXT.splitlines(), trainer)
    assert tokenizer.get_vocab_size() == NUM_TEXT_TOKENS
    return tokenizer


def _generation_config(shape: Shape, token_of: dict[str, int], text: Tokenizer) -> Any:
    eot, sot = token_of["<|endoftext|>"], token_of["<|startoftranscript|>"]
    never = (
        *("<|startoftranscript|>", "<|translate|>", "<|transcribe|>"),
        *("<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
    )
    settings: dict[str, Any] = {
        "bos_token_id": eot,
        "eos_token_id": eot,
        "pad_token_id": eot,
        "decoder_start_token_id": sot,
        "max_length": 448,
        "max_initial_timestamp_index": 50,
        "no_timestamps_token_id": token_of["<|notimestamps|>"],
        "prev_sot_token_id": token_of["<|startofprev|>"],
        "is_multilingual": shape.is_multilingual,
        "return_timestamps": False,
        "suppress_tokens": [
            *(text.token_to_id(symbol) for symbol in '"()[]#@'),
            *(token_of[special] for special in never),
        ],
        "begin_suppress_tokens": [text.token_to_id("Ġ"), eot],
        "alignment_heads": [[shape.decoder_layers - 1, head] for head in (1, 3, 5)],
    }
    if shape.is_multilingual:
        settings["lang_to_id"] = {f"<|{c}|>": token_of[f"<|{c}|>"] for c in shape.languages}
        settings["task_to_id"] = {
            task: token_of[f"<|{task}|>"] for task in ("transcribe", "translate")
        }
    config: Any = transformers.GenerationConfig
    return config(**settings)


@torch.no_grad()
def _fill(model: Any, token_of: dict[str, int], num_languages: int, seed: int) -> None:
    """Random weights: unit-size activations, sharp attention, biases and norms that count.

    Column 0 of the embedding is each token's bias: the decoder's last norm makes that feature 1.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    # Deep models add more often: what came in, and so this token and place, must not drown.
    residual_gain = {
        "encoder": 0.5 * min(1.0, math.sqrt(8 / model.config.encoder_layers)),
        "decoder": min(1.0, math.sqrt(4 / model.config.decoder_layers)),
    }
    for name, parameter in model.model.named_parameters():
        if name.endswith("bias"):
            normal(parameter, 0.1)
        elif "layer_norm" in name:
            normal(parameter, 0.1, mean=1.0)
        elif "conv" in name:
            normal(parameter, 2.0 / math.sqrt(parameter[0].numel()))
        elif name == "encoder.embed_positions.weight":
            continue  # the sinusoids that every checkpoint stores
        elif name == "decoder.embed_positions.weight":
            normal(parameter, 1.5)
        elif ".q_proj" in name or ".k_proj" in name:
            sharpness = 2.2 if "encoder_attn" in name else 1.8 if "decoder" in name else 1.2
            normal(parameter, sharpness / math.sqrt(parameter.shape[1]))
        elif name != "decoder.embed_tokens.weight":
            side = "decoder" if "decoder" in name else "encoder"
            adds_to_residual = "out_proj" in name or "fc2" in name
            gain = residual_gain[side] if adds_to_residual else 1.0
            normal(parameter, gain / math.sqrt(parameter.shape[1]))

    decoder = model.model.decoder
    decoder.layer_norm.weight[0] = 0.0
    decoder.layer_norm.bias[0] = 1.0
    embedding = decoder.embed_tokens.weight
    timestamps = slice(token_of["<|0.00|>"], None)
    normal(embedding, 2.1 / math.sqrt(embedding.shape[1]))
    eot = token_of["<|endoftext|>"]
    embedding[timestamps] *= 0.3
    embedding[eot] *= 0.1
    sot = token_of["<|startoftranscript|>"]
    bias = torch.zeros(len(embedding))
    bias[eot] = 4.0
    # The longer the hypothesis, the likelier its end: feature 1 grows with the position.
    positions = decoder.embed_positions.weight
    positions[:, 1] += 12.0 * torch.arange(len(positions)) / len(positions)
    embedding[eot, 1] = 1.0
    bias[sot + 1 : sot + 1 + num_languages] = -8.0
    bias[token_of["<|notimestamps|>"]] = -8.0
    # Together they are about as likely as the best text token, each alone is not; earlier ones
    # are likelier, so that time goes on step by step.
    bias[timestamps] = 1.0 - 0.004 * torch.arange(NUM_TIMESTAMPS)
    embedding[:, 0] = bias
    # A random network has favourites; without them what remains depends on audio and history.
    tokens = torch.randint(NUM_TEXT_TOKENS, (16, 40), generator=generator)
    audio = torch.randn(16, 50, embedding.shape[1], generator=generator)
    for _ in range(2):
        hidden = decoder(input_ids=tokens, encoder_hidden_states=audio).last_hidden_state
        embedding[:, 0] += bias - (hidden @ embedding.T).mean(dim=(0, 1))


def _openai_name(name: str) -> str:
    for ours, theirs in (
        ("encoder.layer_norm.", "encoder.ln_post."),
        ("decoder.layer_norm.", "decoder.ln."),
        (".layers.", ".blocks."),
        (".self_attn_layer_norm.", ".attn_ln."),
        (".encoder_attn_layer_norm.", ".cross_attn_ln."),
        (".self_attn.", ".attn."),
        (".encoder_attn.", ".cross_attn."),
        (".q_proj.", ".query."),
        (".k_proj.", ".key."),
        (".v_proj.", ".value."),
        (".out_proj.", ".out."),
        (".final_layer_norm.", ".mlp_ln."),
        (".fc1.", ".mlp.0."),
        (".fc2.", ".mlp.2."),
        (".embed_tokens.", ".token_embedding."),
        (".embed_positions.weight", ".positional_embedding"),
    ):
        name = name.replace(ours, theirs)
    return name
