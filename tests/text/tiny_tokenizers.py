"""The common part of tests of tokenizers: small ones with the traits of published families, made on the spot.

Owns: vocabularies of a few hundred tokens, chat templates of the usual shapes. Does not own: what is expected
of them. Thread rule: free of state.
"""

import json
from pathlib import Path

WORDS = (
    "Name a fruit . Plum , quince and apple . Person A : Hello ! Person B : How are you ? Fine thanks .\n"
    "user assistant system You are kind and brief . Which one would you like best of all ?\n"
)


def chatml(system=""):
    """ChatML; with a default system message, as Qwen 2 has one."""
    default = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\n" + system + "<|im_end|>\n{% endif %}"
        if system
        else ""
    )
    return (
        default + "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


TEMPLATES = {
    "chatml": chatml(),
    "default system": chatml("You are kind."),
    "thinking": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "headers": "{{ bos_token }}{% for m in messages %}"
    "{{ '<|head|>' + m.role + '<|/head|>\n\n' + m.content | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}",
    "separator": "{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    "roles with end": "{% for m in messages %}"
    "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "roles as text": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "turns": "{{ bos_token }}{% for m in messages %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "inst with spaces": "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% endif %}{% endfor %}",
    "inst": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST]' + m.content + '[/INST]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
}


def byte_level(folder: Path, special, config=None, template=None, vocabulary=360) -> Path:
    """Byte-level BPE as Llama 3, Qwen, Phi-4 and Nemo have it: special tokens stand behind the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([WORDS] * 4, trainer)
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return _save(folder, backend.to_str(), config, template)


def metaspace(folder: Path, special, config=None, template=None, prefix=True, rstrip=()) -> Path:
    """Sentencepiece-style BPE with bytes: a word start before every text (Llama 2, Phi-3) or not (Gemma)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    spaces = normalizers.Replace(" ", "\u2581")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), spaces])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    named = ["<unk>", "<s>", "</s>", *special]
    pieces = [*named, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=pieces, show_progress=False)
    backend.train_from_iterator(WORDS.split() * 4, trainer)
    if not prefix:
        backend.normalizer = spaces
    layout = json.loads(backend.to_str())
    layout["added_tokens"] = [
        {**token, "rstrip": token["content"] in rstrip}
        for token in layout["added_tokens"]
        if token["content"] in named
    ]
    return _save(folder, json.dumps(layout), config, template)


def _save(folder: Path, tokenizer: str, config: dict | None, template: str | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    values = {"tokenizer_class": "PreTrainedTokenizerFast", **(config or {})}
    if template is not None:
        values["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def sentencepiece_folder(folder: Path, added, config=None, template=None) -> Path:
    """tokenizer.model, and JSON files that add tokens behind its pieces and name begin and end."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text(WORDS * 4)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    size = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size()
    ids = {text: size + i for i, text in enumerate(added)}
    (folder / "added_tokens.json").write_text(json.dumps(ids))
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    first = {str(i): {"content": text, **flags} for i, text in enumerate(["<unk>", "<s>", "</s>"])}
    decoder = {**first, **{str(i): {"content": text, **flags} for text, i in ids.items()}}
    values = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "added_tokens_decoder": decoder,
        **(config or {}),
    }
    if template is not None:
        values["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    return folder


def split_folder(folder: Path, special, config=None, template=None) -> Path:
    """vocab.json with merges.txt, as GPT-2 was published, and no tokenizer.json."""
    byte_level(folder, [], config, template)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    size = len(model["vocab"])
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({t: size + i for i, t in enumerate(special)}))
    return folder
