"""Small random encoders of every family, and their hidden states by transformers alone."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    DebertaConfig,
    DebertaModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    GPT2Config,
    GPT2Model,
    HubertConfig,
    HubertModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    SeamlessM4TFeatureExtractor,
    UniSpeechConfig,
    UniSpeechModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WORDS = [
    *("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree"),
    *("and", "then", "it", "was", "so", "very", "happy", "sad"),
]
LAYERS = 3  # two transformer layers and the input of the first
SPEECH: dict[str, tuple[Any, Any, dict[str, Any], bool]] = {
    "wav2vec2-group": (Wav2Vec2Model, Wav2Vec2Config, {"feat_extract_norm": "group"}, True),
    "wav2vec2-layer": (
        Wav2Vec2Model,
        Wav2Vec2Config,
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
        True,
    ),
    "hubert": (HubertModel, HubertConfig, {}, True),
    "hubert-layer": (
        HubertModel,
        HubertConfig,
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
        True,
    ),
    "hubert-batch": (HubertModel, HubertConfig, {"conv_pos_batch_norm": True}, True),
    "wavlm": (WavLMModel, WavLMConfig, {}, False),
    "data2vec-audio": (
        Data2VecAudioModel,
        Data2VecAudioConfig,
        {"conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 5},
        True,
    ),
    "unispeech": (UniSpeechModel, UniSpeechConfig, {}, False),
    "unispeech-sat": (UniSpeechSatModel, UniSpeechSatConfig, {}, False),
}
V1 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
V3 = {**V1, "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 8}
TEXT: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert": (BertModel, BertConfig, {"hidden_size": 32, "num_hidden_layers": 2}),
    "distilbert": (DistilBertModel, DistilBertConfig, {"dim": 32, "n_layers": 2, "n_heads": 2}),
    "electra": (
        ElectraModel,
        ElectraConfig,
        {"hidden_size": 32, "num_hidden_layers": 2, "embedding_size": 16},
    ),
    "roberta": (RobertaModel, RobertaConfig, {"hidden_size": 32, "num_hidden_layers": 2}),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig, {"hidden_size": 32, "num_hidden_layers": 2}),
    "camembert": (CamembertModel, CamembertConfig, {"hidden_size": 32, "num_hidden_layers": 2}),
    "mpnet": (MPNetModel, MPNetConfig, {"hidden_size": 32, "num_hidden_layers": 2}),
    "modernbert": (
        ModernBertModel,
        ModernBertConfig,
        {"hidden_size": 32, "num_hidden_layers": 2, "local_attention": 8},
    ),
    "deberta": (DebertaModel, DebertaConfig, {"hidden_size": 32, "num_hidden_layers": 2, **V1}),
    "deberta-v3": (
        DebertaV2Model,
        DebertaV2Config,
        {"hidden_size": 32, "num_hidden_layers": 2, **V3},
    ),
    "deberta-v2-conv": (
        DebertaV2Model,
        DebertaV2Config,
        {"hidden_size": 32, "num_hidden_layers": 2, **V3, "conv_kernel_size": 3},
    ),
}
# These count positions from the id of the padding on, which is 1 for them and 0 for others.
FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")


def save_speech(folder: Path, kind: str, **size: Any) -> Path:
    model, config, changes, normalise = SPEECH[kind]
    torch.manual_seed(1)
    small = {
        "hidden_size": 32,
        "num_hidden_layers": LAYERS - 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (32,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    model(config(**{**small, **changes, **size})).save_pretrained(folder)
    layer = changes.get("feat_extract_norm") == "layer"
    Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=layer).save_pretrained(
        folder
    )
    return folder


def save_text(folder: Path, kind: str, **size: Any) -> Path:
    model, config, changes = TEXT[kind]
    torch.manual_seed(1)
    like_roberta = kind in FROM_PADDING
    names = ["<s>", "<pad>", "</s>", "<unk>"] if like_roberta else ["[PAD]", "[UNK]", "[CLS]"]
    names += [] if like_roberta else ["[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*names, *WORDS])}
    first, last, pad, unknown = (
        ("<s>", "</s>", "<pad>", "<unk>") if like_roberta else ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    )
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
    )
    small = {
        "vocab_size": len(vocabulary),
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 34 if like_roberta else 32,
        "pad_token_id": vocabulary[pad],
        "hidden_dropout_prob": 0.1,
    }
    model(config(**{**small, **changes, **size})).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
    ).save_pretrained(folder)
    return folder


def save_whisper(folder: Path) -> Path:
    torch.manual_seed(1)
    config = WhisperConfig(
        d_model=32,
        encoder_layers=LAYERS - 1,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        vocab_size=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


DECODERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "gpt2": (GPT2Model, GPT2Config, {}),
    "llama": (LlamaModel, LlamaConfig, {}),
    "mistral": (MistralModel, MistralConfig, {"sliding_window": 8}),
    "qwen2": (Qwen2Model, Qwen2Config, {"max_position_embeddings": 256}),
    "qwen3": (Qwen3Model, Qwen3Config, {"head_dim": 16}),
    "gemma3_text": (
        Gemma3TextModel,
        Gemma3TextConfig,
        {"sliding_window": 8, "head_dim": 16, "query_pre_attn_scalar": 16},
    ),
}
BEGINS = ("llama", "gemma3_text")  # their tokenizers add a beginning of the text, others nothing


def save_decoder(folder: Path, kind: str) -> Path:
    model, config, changes = DECODERS[kind]
    torch.manual_seed(1)
    vocabulary = {word: number for number, word in enumerate(["<s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind == "qwen2":  # transformers loads it with bytes as tokens, whatever was saved
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {letter: number for number, letter in enumerate(["<s>", "<unk>", *letters])}
        tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind in BEGINS:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    small = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": LAYERS - 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
    like_gpt = kind == "gpt2"
    more = {} if like_gpt else {"num_key_value_heads": 1, "intermediate_size": 64}
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    model(config(**{**small, **more, **tokens, **changes})).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>"
    ).save_pretrained(folder)
    return folder


def save_wav2vec2_bert(folder: Path) -> Path:
    torch.manual_seed(1)
    config = Wav2Vec2BertConfig(
        hidden_size=32,
        num_hidden_layers=LAYERS - 1,
        num_attention_heads=2,
        intermediate_size=64,
        conv_depthwise_kernel_size=7,
        left_max_position_embeddings=8,
        right_max_position_embeddings=4,
    )
    Wav2Vec2BertModel(config).save_pretrained(folder)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)
    return folder


@cache
def direct_model(folder: Path):
    return AutoModel.from_pretrained(folder).eval()


def hidden_states(folder: Path, inputs):
    with torch.inference_mode():
        states = direct_model(folder)(**inputs, output_hidden_states=True).hidden_states
    return torch.stack(states, dim=1)[0].numpy()


def direct_speech(folder: Path, signal):
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    return hidden_states(folder, extractor(signal, sampling_rate=16_000, return_tensors="pt"))


def direct_text(folder: Path, text: str):
    return hidden_states(folder, AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt"))


def noise(samples: int, seed: int):
    rng = np.random.default_rng([seed, samples])
    return (0.1 * rng.standard_normal(samples) + 0.02).astype(np.float32)


def assert_same(ours, expected):
    """Each frame's vector is within 1e-5 of the direct one, relative to its length."""
    assert ours.shape == expected.shape
    assert ours.dtype == np.float32
    error = np.linalg.norm(ours - expected, axis=-1)
    assert (error <= 1e-5 * np.linalg.norm(expected, axis=-1)).all()
