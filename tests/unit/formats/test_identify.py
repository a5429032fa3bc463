"""A table of made files and folders, and what each of them is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import (
    CorruptModelError,
    InnkeeperError,
    InvalidRequestError,
    NotAModelError,
    NotFoundError,
    UnsupportedModelError,
)
from innkeeper.formats.identify import identify
from innkeeper.formats.identity import Identity
from tests.unit.formats.made_models import (
    PLAIN,
    gguf,
    gguf_split,
    hf,
    hf_sharded,
    safetensors,
    text,
)

Build = Callable[[Path], Path]
GPTQ = {
    "model.embed_tokens.weight": ("F16", (1000, 256)),
    "model.layers.0.mlp.up_proj.qweight": ("I32", (32, 512)),
    "model.layers.0.mlp.up_proj.qzeros": ("I32", (2, 64)),
    "model.layers.0.mlp.up_proj.scales": ("F16", (2, 512)),
    "model.layers.0.mlp.up_proj.g_idx": ("I32", (256,)),
}
NF4 = {
    "model.embed_tokens.weight": ("F16", (1000, 256)),
    "model.layers.0.mlp.up_proj.weight": ("U8", (65536, 1)),
    "model.layers.0.mlp.up_proj.weight.absmax": ("F32", (2048,)),
    "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4": ("U8", (80,)),
}
FP8 = {
    "model.layers.0.mlp.up_proj.weight": ("F8_E4M3", (512, 256)),
    "model.layers.0.mlp.up_proj.weight_scale": ("F32", (1,)),
}
MXFP4 = {
    "model.layers.0.mlp.experts.up_blocks": ("U8", (4, 512, 8, 16)),
    "model.layers.0.mlp.experts.up_scales": ("U8", (4, 512, 8)),
}
PACKED = {
    "model.layers.0.mlp.up_proj.weight_packed": ("I32", (512, 32)),
    "model.layers.0.mlp.up_proj.weight_scale": ("BF16", (512, 2)),
    "model.layers.0.mlp.up_proj.weight_shape": ("I64", (2,)),
}
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}"
LLAMA3 = "<|start_header_id|>{{ role }}<|end_header_id|>"
INT4 = {"config_groups": {"g": {"weights": {"num_bits": 4, "type": "int"}}}}


def named(name: str, quant: str = "q4_k", **options: Any) -> Build:
    """A GGUF of that name."""
    return lambda folder: gguf(folder / name, quant, **options)


def hf_with(name: str = "model", tensors: Any = PLAIN, **config: Any) -> Build:
    """A folder of that name."""
    return lambda folder: hf(folder / name, tensors, **config)


def also(build: Build, *files: tuple[str, Any]) -> Build:
    """What ``build`` makes, with more files in the folder."""

    def made(folder: Path) -> Path:
        path = build(folder)
        for name, content in files:
            text((path if path.is_dir() else path.parent) / name, content)
        return path

    return made


def only(name: str, content: Any = b"\x80\x02junk") -> Build:
    """A single file."""
    return lambda folder: text(folder / name, content)


def folder_of(*files: tuple[str, Any]) -> Build:
    """A folder with these files alone."""

    def made(folder: Path) -> Path:
        for name, content in files:
            text(folder / "thing" / name, content)
        return folder / "thing"

    return made


def without(build: Build, name: str) -> Build:
    """What ``build`` makes, less one file."""

    def made(folder: Path) -> Path:
        path = build(folder)
        ((path if path.is_dir() else path.parent) / name).unlink()
        return path

    return made


def split(folder: Path) -> Path:
    return gguf_split(folder, "big-Q4_K_M", 3)[1]


TEMPLATE = "tokenizer__chat_template"
FOUND: dict[str, tuple[Build, dict[str, Any]]] = {
    # GGUF: quantizations
    "q4_k_m": (
        named("kunoichi-7b.Q4_K_M.gguf", general__file_type=15),
        {"format": "gguf", "quant": "Q4_K_M", "claimed_quant": "Q4_K_M", "loader": "llama_cpp"},
    ),
    "q4_k_s": (named("m-Q4_K_S.gguf", general__file_type=14), {"quant": "Q4_K_S"}),
    "q8_0": (named("m-q8_0.gguf", "q8_0", general__file_type=7), {"quant": "Q8_0"}),
    "q6_k": (named("m.Q6_K.gguf", "q6_k", general__file_type=18), {"quant": "Q6_K"}),
    "q5_k_m": (named("m.Q5_K_M.gguf", "q5_k", general__file_type=17), {"quant": "Q5_K_M"}),
    "q3_k_l": (named("m.Q3_K_L.gguf", "q3_k", general__file_type=13), {"quant": "Q3_K_L"}),
    "q2_k": (named("m.Q2_K.gguf", "q2_k", general__file_type=10), {"quant": "Q2_K"}),
    "q4_0": (named("m-q4_0.gguf", "q4_0", general__file_type=2), {"quant": "Q4_0"}),
    "iq3_xxs": (named("m.IQ3_XXS.gguf", "iq3_xxs", general__file_type=23), {"quant": "IQ3_XXS"}),
    "iq4_xs": (named("m.i1-IQ4_XS.gguf", "iq4_xs", general__file_type=30), {"quant": "IQ4_XS"}),
    "iq3_m": (
        named("m-IQ3_M.gguf", "iq3_s", general__file_type=27),
        {"quant": "IQ3_M", "claimed_quant": "IQ3_M", "warnings": ()},
    ),
    "f16": (
        named("m-f16.gguf", "f16", general__file_type=1),
        {"quant": "F16", "claimed_quant": "F16", "bits_per_weight": 16.0},
    ),
    "fp16-spelling": (named("m.fp16.gguf", "f16", general__file_type=1), {"claimed_quant": "F16"}),
    "bf16": (named("m-BF16.gguf", "bf16", general__file_type=32), {"quant": "BF16"}),
    "f32": (named("m.gguf", "f32", general__file_type=0), {"quant": "F32", "claimed_quant": None}),
    "mxfp4": (named("gpt-oss-20b-MXFP4.gguf", "mxfp4", general__file_type=38), {"quant": "MXFP4"}),
    "no-file-type": (named("m-Q4_K_M.gguf"), {"quant": "Q4_K", "warnings": ()}),
    "lying-file-type": (named("m.gguf", "q8_0", general__file_type=15), {"quant": "Q8_0"}),
    "lying-name": (
        named("m.Q8_0.gguf", "q4_k", general__file_type=15),
        {"quant": "Q4_K_M", "claimed_quant": "Q8_0", "warnings": ["name says Q8_0"]},
    ),
    "gguf-size-lie": (named("m-7B-Q4_K_M.gguf"), {"warnings": ["says 7B parameters"]}),
    "f16-called-q4": (named("m.Q4_0.gguf", "f16"), {"quant": "F16", "warnings": ["says Q4_0"]}),
    # GGUF: context
    "context": (
        named("m.gguf", h_context_length=32768),
        {"num_ctx_train": 32768, "warnings": ()},
    ),
    "context-hint-true": (
        named("m-16k.gguf", h_context_length=16384),
        {"num_ctx_train": 16384, "warnings": ()},
    ),
    "context-hint-false": (
        named("m-16k-Q4_K_M.gguf"),
        {"num_ctx_train": 4096, "warnings": ["16,384 tokens of context, the header 4,096"]},
    ),
    "rope-linear": (
        named("m.gguf", h_rope__scaling__type="linear", h_rope__scaling__factor=4.0),
        {"rope_scaling": "linear x4"},
    ),
    "rope-yarn": (
        named(
            "m.gguf",
            h_context_length=131072,
            h_rope__scaling__type="yarn",
            h_rope__scaling__factor=4.0,
            h_rope__scaling__original_context_length=32768,
        ),
        {"rope_scaling": "yarn x4 from 32,768", "num_ctx_train": 131072},
    ),
    "sliding-window": (
        named("m.gguf", h_context_length=8192, h_attention__sliding_window=4096),
        {"sliding_window": 4096, "warnings": ["only the last 4,096"]},
    ),
    # GGUF: templates
    "chatml": (
        named("m.gguf", **{TEMPLATE: CHATML}),
        {"chat_format": "ChatML", "chat_format_source": "template"},
    ),
    "llama3": (named("m.gguf", **{TEMPLATE: LLAMA3}), {"chat_format": "Llama-3"}),
    "mistral": (named("m.gguf", **{TEMPLATE: "[INST] x [/INST]"}), {"chat_format": "Mistral"}),
    "llama2": (
        named("m.gguf", **{TEMPLATE: "[INST] <<SYS>> x [/INST]"}),
        {"chat_format": "Llama-2"},
    ),
    "gemma": (named("m.gguf", **{TEMPLATE: "<start_of_turn>user"}), {"chat_format": "Gemma"}),
    "alpaca": (named("m.gguf", **{TEMPLATE: "### Instruction:\n"}), {"chat_format": "Alpaca"}),
    "vicuna": (named("m.gguf", **{TEMPLATE: "USER: x ASSISTANT:"}), {"chat_format": "Vicuna"}),
    "phi3": (named("m.gguf", **{TEMPLATE: "<|user|>x<|end|>"}), {"chat_format": "Phi-3"}),
    "zephyr": (named("m.gguf", **{TEMPLATE: "<|user|>x</s>"}), {"chat_format": "Zephyr"}),
    "harmony": (
        named("m.gguf", **{TEMPLATE: "<|start|>x<|channel|>"}),
        {"chat_format": "Harmony"},
    ),
    "custom-template": (named("m.gguf", **{TEMPLATE: "{{ x }}"}), {"chat_format": "custom"}),
    "format-by-name": (
        named("Kunoichi-DPO-v2-7B.gguf"),
        {"chat_format": "Alpaca", "chat_format_source": "name"},
    ),
    "base-model": (named("Mistral-7B-v0.3.gguf"), {"chat_format": None}),
    # GGUF: kinds and files
    "split": (
        split,
        {"files": 3, "missing_files": (), "num_params": 3 * 4096 * 256, "loader": "llama_cpp"},
    ),
    "split-incomplete": (
        without(split, "big-Q4_K_M-00003-of-00003.gguf"),
        {"files": 2, "missing_files": 1, "loader": None, "num_params": None, "quant": "Q4_K"},
    ),
    "mixture": (
        named("m.gguf", h_expert_count=8),
        {"num_experts": 8, "num_layers": 2, "architecture": "llama"},
    ),
    "licence": (named("m.gguf", general__license="apache-2.0"), {"licence": "apache-2.0"}),
    "gguf-lora": (
        named("m.gguf", general__type="adapter"),
        {"format": "lora", "loader": None, "warnings": ["LoRA"]},
    ),
    "mmproj": (
        named("mmproj.gguf", "f16", architecture="clip"),
        {"format": "vision", "loader": None},
    ),
    "embedding": (
        named("m.gguf", "f16", architecture="bert"),
        {"format": "gguf-other", "loader": None, "warnings": ["do not write text"]},
    ),
    "gguf-without-extension": (
        named("sha256-1234"),
        {"format": "gguf", "quant": "Q4_K"},
    ),
    "folder-of-one-gguf": (
        lambda folder: named("x/m-Q4_K_M.gguf")(folder).parent,
        {"format": "gguf", "name": "m-Q4_K_M.gguf"},
    ),
    "folder-with-mmproj": (
        lambda folder: (
            (named("x/mmproj-m.gguf", "f16")(folder), named("x/m.gguf")(folder))[1].parent
        ),
        {"format": "gguf", "name": "m.gguf"},
    ),
    # safetensors
    "plain": (
        hf_with(),
        {
            "format": "safetensors",
            "quant": "BF16",
            "quant_method": "none",
            "bits_per_weight": 16.0,
            "num_params": 2 * 256000 + 131072,
            "num_ctx_train": 8192,
            "architecture": "llama",
            "loader": "torch",
        },
    ),
    "sharded": (
        lambda folder: hf_sharded(folder / "model"),
        {"files": 3, "missing_files": (), "num_params": 3 * 65536, "loader": "torch"},
    ),
    "sharded-incomplete": (
        without(lambda folder: hf_sharded(folder / "model"), "model-00002-of-00003.safetensors"),
        {"files": 2, "missing_files": 1, "loader": None, "advice": "missing parts"},
    ),
    "one-shard-named": (
        lambda folder: hf_sharded(folder / "model") / "model-00002-of-00003.safetensors",
        {"files": 3, "num_params": 3 * 65536},
    ),
    "gptq": (
        hf_with("m-GPTQ", GPTQ, quantization_config={"quant_method": "gptq", "bits": 4}),
        {"quant": "GPTQ 4-bit", "quant_method": "gptq", "num_params": 256000 + 131072},
    ),
    "gptq-old": (
        also(hf_with("m", GPTQ), ("quantize_config.json", {"bits": 4, "group_size": 128})),
        {"quant": "GPTQ 4-bit", "quant_method": "gptq"},
    ),
    "awq": (
        hf_with("m-AWQ", GPTQ, quantization_config={"quant_method": "awq", "bits": 4}),
        {"quant": "AWQ 4-bit", "loader": "torch", "warnings": ()},
    ),
    "awq-old": (
        also(hf_with("m", GPTQ), ("quant_config.json", {"w_bit": 4, "q_group_size": 128})),
        {"quant": "AWQ 4-bit"},
    ),
    "bitsandbytes-4": (
        hf_with("m", NF4, quantization_config={"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
        {"quant": "bitsandbytes 4-bit", "num_params": 256000 + 131072},
    ),
    "bitsandbytes-8": (
        hf_with("m", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        {"quant": "bitsandbytes 8-bit"},
    ),
    "fp8": (
        hf_with("m-FP8", FP8, quantization_config={"quant_method": "fp8"}),
        {"quant": "FP8", "quant_method": "fp8", "num_params": 131072},
    ),
    "fp8-unsaid": (hf_with("m", FP8), {"quant_method": "fp8"}),
    "compressed-tensors": (
        hf_with("m", PACKED, quantization_config={"quant_method": "compressed-tensors", **INT4}),
        {"quant": "compressed-tensors INT4", "num_params": 131072},
    ),
    "mxfp4-safetensors": (
        hf_with("m", MXFP4, quantization_config={"quant_method": "mxfp4"}),
        {"quant": "MXFP4", "num_params": 4 * 512 * 256},
    ),
    "exl2": (
        hf_with("m-exl2", GPTQ, quantization_config={"quant_method": "exl2", "bits": 4.25}),
        {"quant": "EXL2 4.25bpw", "loader": None, "advice": "GGUF"},
    ),
    "exl3": (
        hf_with("m-exl3", GPTQ, quantization_config={"quant_method": "exl3", "bits": 3.0}),
        {"quant": "EXL3 3bpw", "loader": None},
    ),
    "mlx": (
        hf_with("m-mlx", GPTQ, quantization={"bits": 4, "group_size": 64}),
        {"quant_method": "mlx", "loader": None},
    ),
    "method-lie": (
        hf_with("m-AWQ", GPTQ, quantization_config={"quant_method": "gptq", "bits": 4}),
        {"warnings": ["the name says AWQ"]},
    ),
    "size-lie": (hf_with("m-7B"), {"warnings": ["says 7B parameters"]}),
    "yarn-config": (
        hf_with(
            "m",
            max_position_embeddings=32768,
            rope_scaling={
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32768,
            },
        ),
        {"num_ctx_train": 131072, "rope_scaling": "yarn x4 from 32,768"},
    ),
    "window-config": (
        hf_with("m", max_position_embeddings=32768, sliding_window=4096),
        {"sliding_window": 4096, "warnings": ["sliding window 4,096"]},
    ),
    "window-off": (
        hf_with("m", sliding_window=4096, use_sliding_window=False),
        {"sliding_window": None, "warnings": ()},
    ),
    "nested-config": (
        hf_with("m", text_config={"max_position_embeddings": 65536}, vision_config={}),
        {"num_ctx_train": 65536, "warnings": ["images"]},
    ),
    "template-file": (
        also(hf_with(), ("chat_template.jinja", LLAMA3)),
        {"chat_format": "Llama-3", "chat_format_source": "template"},
    ),
    "template-in-tokenizer": (
        also(hf_with(), ("tokenizer_config.json", {"chat_template": CHATML})),
        {"chat_format": "ChatML"},
    ),
    "several-templates": (
        also(
            hf_with(),
            ("tokenizer_config.json", {"chat_template": [{"name": "a", "template": CHATML}]}),
        ),
        {"chat_format": "ChatML"},
    ),
    "readme-licence": (
        also(hf_with(), ("README.md", "---\nlicense: cc-by-nc-4.0\ntags: []\n---\n# M")),
        {"licence": "cc-by-nc-4.0"},
    ),
    "pickles-beside": (
        also(hf_with(), ("pytorch_model.bin", b"x")),
        {"is_safe": True, "warnings": ["never opened"], "files": 1},
    ),
    "remote-code": (
        also(hf_with(auto_map={"AutoModel": "x.Y"}), ("x.py", "1")),
        {"warnings": ["does not run"]},
    ),
    "classifier": (
        hf_with(architectures=["LlamaForSequenceClassification"]),
        {"loader": None, "warnings": ["classifies"]},
    ),
    "no-tokenizer": (without(hf_with(), "tokenizer.json"), {"warnings": ["tokenizer is missing"]}),
    "no-weights": (
        without(hf_with(), "model.safetensors"),
        {"loader": None, "files": 0, "advice": "safetensors"},
    ),
    "lone-safetensors": (
        lambda folder: safetensors(folder / "m.safetensors", PLAIN),
        {"loader": None, "quant": "BF16", "warnings": ["config.json is missing"]},
    ),
    "lora": (
        folder_of(
            ("adapter_config.json", {"base_model_name_or_path": "org/base"}),
            ("adapter_model.safetensors", b"x" * 40),
        ),
        {"format": "lora", "loader": None, "advice": "org/base"},
    ),
    # pickles and others
    "pytorch-bin": (
        folder_of(("config.json", {}), ("pytorch_model.bin", b"PK\3\4")),
        {"format": "pickle", "is_safe": False, "loader": None, "advice": "safetensors or GGUF"},
    ),
    "pytorch-shards": (
        folder_of(
            ("pytorch_model-00001-of-00002.bin", b"PK"), ("pytorch_model-00002-of-00002.bin", b"PK")
        ),
        {"format": "pickle", "is_safe": False, "files": 2},
    ),
    "pt": (only("model.pt"), {"format": "pickle", "is_safe": False}),
    "ckpt": (only("model.ckpt", b"anything"), {"format": "pickle", "is_safe": False}),
    "consolidated": (
        folder_of(("consolidated.00.pth", b"PK"), ("params.json", {})),
        {"format": "pickle", "is_safe": False},
    ),
    "lone-bin": (only("weights.bin", b"PK\3\4junkjunkjunkjunk"), {"format": "pickle"}),
    "ggml": (
        only("ggml-model-q4_0.bin", b"tjgg\3\0\0\0" + b"\0" * 40),
        {"format": "ggml", "loader": None, "warnings": ["GGJT"], "advice": "GGUF"},
    ),
    "onnx": (only("model.onnx"), {"format": "onnx", "loader": None}),
    "llamafile": (only("m.llamafile", b"MZqFpD"), {"format": "llamafile"}),
}

REFUSED: dict[str, tuple[Build, type[InnkeeperError], str]] = {
    "missing": (lambda folder: folder / "none.gguf", NotFoundError, "no file or folder"),
    "empty-folder": (folder_of(("notes.txt", "x")), NotAModelError, "no model in thing"),
    "empty-file": (only("m.gguf", b""), CorruptModelError, "m.gguf: the file is empty"),
    "text-file": (only("notes.txt", "Once upon a time"), NotAModelError, "notes.txt"),
    "web-page": (only("m.gguf", "<!DOCTYPE html><html></html>"), NotAModelError, "web page"),
    "lfs-pointer": (
        only("m.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        NotAModelError,
        "Git LFS",
    ),
    "lfs-safetensors": (
        also(hf_with(), ("model.safetensors", "version https://git-lfs.github.com/spec/v1\n" * 3)),
        CorruptModelError,
        "Git LFS",
    ),
    "big-endian": (only("m.gguf", b"GGUF\0\0\0\3" * 8), UnsupportedModelError, "big-endian"),
    "several-ggufs": (
        lambda folder: (named("x/a.gguf")(folder), named("x/b.gguf")(folder))[1].parent,
        InvalidRequestError,
        "2 models in it",
    ),
    "diffusers": (
        folder_of(("model_index.json", {}), ("unet/config.json", {})),
        NotAModelError,
        "image model",
    ),
    "bad-config": (also(hf_with(), ("config.json", "[1, 2")), CorruptModelError, "config.json"),
    "outside-index": (
        also(
            hf_with(),
            ("model.safetensors.index.json", {"weight_map": {"a": "../../etc/passwd"}}),
        ),
        CorruptModelError,
        "elsewhere",
    ),
    "short-safetensors": (
        also(hf_with(), ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}")),
        CorruptModelError,
        "claims 16 bytes",
    ),
}


def matches(field: str, found: Any, expected: Any) -> bool:
    """Lists of words must be in one warning each, counts be lengths, advice contain its word."""
    if isinstance(expected, list):
        return all(any(word in warning for warning in found) for word in expected)
    if isinstance(expected, int) and isinstance(found, tuple):
        return len(found) == expected
    if field == "advice":
        return expected in found
    return bool(found == expected)


def test_the_table_is_long_enough() -> None:
    assert len(FOUND) + len(REFUSED) >= 100


@pytest.mark.parametrize("case", FOUND)
def test_identifies(case: str, tmp_path: Path) -> None:
    build, expected = FOUND[case]
    found = identify(build(tmp_path))
    for field, value in expected.items():
        assert matches(field, getattr(found, field), value), (field, getattr(found, field), found)
    assert json.loads(json.dumps(found.to_json())) == found.to_json() | {
        key: list(value) for key, value in found.to_json().items() if isinstance(value, tuple)
    }


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str, tmp_path: Path) -> None:
    build, error, words = REFUSED[case]
    with pytest.raises(error) as caught:
        identify(build(tmp_path))
    assert words in caught.value.message


def test_pickles_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = only("model.ckpt")(tmp_path)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Path, "open", refuse)
    assert not identify(path).is_safe


def test_json_has_the_same_fields_for_everything(tmp_path: Path) -> None:
    first = identify(named("a.gguf")(tmp_path / "1")).to_json()
    second = identify(only("b.pt")(tmp_path / "2")).to_json()
    assert list(first) == list(second) == list(Identity.__struct_fields__)
