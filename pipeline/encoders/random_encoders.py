"""Small encoders with random weights, for the demo and for tests that have no trained weights.

They are real transformers models (Wav2Vec2Model with its group-normalised convolutions, BertModel,
ViTModel) and use the same code as encoders from the hub. They are not trained: their hidden states
are random projections of the input.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import Any

SEED = 0


def save_speech_encoder(folder: Path, *, seed: int = SEED, **changes: Any) -> Path:
    """Save a Wav2Vec2Model of 4 layers, 64 wide, at 25 frames a second; return its folder."""
    import torch  # noqa: PLC0415 -- seconds to import
    from transformers import (  # noqa: PLC0415
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
    )
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()

    torch.manual_seed(seed)
    small = {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "conv_dim": (64,) * 7,
        "conv_stride": (5, 4, 2, 2, 2, 2, 2),
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    Wav2Vec2Model(Wav2Vec2Config(**{**small, **changes})).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def save_text_encoder(
    folder: Path, words: Iterable[str], *, seed: int = SEED, **changes: Any
) -> Path:
    """Save a BertModel of 4 layers, 64 wide, with a token for each of ``words``; return its folder.

    The tokenizer spells all other words.
    """
    import torch  # noqa: PLC0415
    from tokenizers import (  # noqa: PLC0415
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()

    torch.manual_seed(seed)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*ascii_lowercase, *digits, *punctuation, "’", "…"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *sorted(words)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    small = {
        "vocab_size": len(vocabulary),
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 128,
    }
    BertModel(BertConfig(**{**small, **changes})).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
        model_max_length=128,
    ).save_pretrained(folder)
    return folder


def save_vision_encoder(folder: Path, *, seed: int = SEED, **changes: Any) -> Path:
    """Save a ViTModel of 4 layers, 64 wide, for pictures of 64 x 64; return its folder."""
    import torch  # noqa: PLC0415
    from transformers import ViTConfig, ViTModel  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()

    torch.manual_seed(seed)
    small = {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "image_size": 64,
        "patch_size": 16,
    }
    config = ViTConfig(**{**small, **changes})
    ViTModel(config).save_pretrained(folder)
    size = {"height": config.image_size, "width": config.image_size}
    processor = {"image_processor_type": "ViTImageProcessor", "size": size, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder
