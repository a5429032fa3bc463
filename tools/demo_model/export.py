"""Write the trained model as GGUF: `python -m tools.demo_model.export DIR OUT.gguf --type q8_0`.

The module names of `model` are the tensor names of llama.cpp already, and its rotary embedding
turns neighbouring pairs, so nothing is renamed or permuted.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as TensorType

from tools.demo_model.documents import BOS, EOS, IM_END
from tools.demo_model.model import SHARPNESS, SHARPNESS_KEY, DemoModel, ModelConfig
from tools.demo_model.tokenizer import SPECIAL, vocabulary

NAME = "Innkeeper Demo"
LICENSE = "CC0-1.0"
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{ '<|im_start|>user\\n' + message['content'] + '<|im_end|>\\n' }}
{%- elif message['role'] == 'assistant' -%}
{{ '<|im_start|>assistant\\n' + message['content'] + '<|im_end|>\\n' }}
{%- else -%}
{{ '<|im_start|>system\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
TYPES = {"f32": TensorType.F32, "f16": TensorType.F16, "q8_0": TensorType.Q8_0}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


BLENDED_STAGE, BLENDED_SHARE = 6, 0.1
"""The first stage with `scenes`, and the share of its weights in the mean with the last ones: a
mean over a run stands for a longer decay of the learning rate than there was time for."""
RELEASED_SHARE = 0.0
"""The same for a run that began with an exported model (`train --from-gguf`): the share of that."""


def load_model(folder: Path) -> DemoModel:
    """The model of a finished run as it is exported: blended, and with SHARPNESS in its output
    matrix."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    released = folder / "released.pt"
    source = released if released.exists() else folder / f"stage{BLENDED_STAGE}.pt"
    share = RELEASED_SHARE if released.exists() else BLENDED_SHARE
    earlier = torch.load(source, weights_only=True)
    model = DemoModel(ModelConfig(**state["config"]))
    model.load_state_dict(state["model"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.lerp_(earlier[name], share)
        model.output.weight.mul_(SHARPNESS)
    return model.eval()


def _write_shape(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ffn_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    tokens, merges = vocabulary(path)
    kinds = [
        gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(BOS))
    writer.add_eos_token_id(tokens.index(EOS))
    writer.add_eot_token_id(tokens.index(IM_END))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def export(model: DemoModel, tokenizer: Path, out: Path, tensor_type: str) -> None:
    """Write `out`; matrices get `tensor_type` (a key of TYPES), vectors stay float32."""
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(NAME)
    writer.add_license(LICENSE)
    writer.add_description(
        "A tiny model trained from scratch on generated text about a roadside inn."
    )
    writer.add_float32(SHARPNESS_KEY, SHARPNESS)
    writer.add_file_type(FILE_TYPES[tensor_type])
    _write_shape(writer, model.config)
    _write_tokenizer(writer, tokenizer)
    for name, parameter in model.named_parameters():
        kind = TYPES[tensor_type] if parameter.dim() == 2 else TensorType.F32
        data = parameter.detach().to(torch.float32).numpy().astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what a finished train.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    args = parser.parse_args()
    export(
        load_model(args.folder),
        args.folder / "tokenizer.json",
        args.out,
        args.type,
    )
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
