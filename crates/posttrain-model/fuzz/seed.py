"""The first inputs of the fuzz targets: small files of each kind that are right."""
import json
import pathlib
import struct

import gguf
import numpy as np

here = pathlib.Path(__file__).parent
fixtures = here.parent / "tests" / "fixtures" / "families"


def write(target: str, name: str, content: bytes) -> None:
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


for family in sorted(fixtures.iterdir()):
    if (family / "config.json").is_file():
        write("config", family.name, (family / "config.json").read_bytes())

for name, dtype in [("f32", "F32"), ("bf16", "BF16"), ("i64", "I64")]:
    size = {"F32": 4, "BF16": 2, "I64": 8}[dtype] * 6
    header = {"__metadata__": {"format": "pt"}, "a": {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, size]},
              "b": {"dtype": dtype, "shape": [0], "data_offsets": [size, size]}}
    text = json.dumps(header).encode()
    write("safetensors", name, struct.pack("<Q", len(text)) + text + bytes(size))


def small_gguf(path: pathlib.Path, kind: gguf.GGMLQuantizationType) -> None:
    """A Llama of one layer, 32 wide."""
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(64)
    out.add_embedding_length(32)
    out.add_block_count(1)
    out.add_feed_forward_length(32)
    out.add_head_count(2)
    out.add_head_count_kv(1)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list(["<e>", "a", "b", "ab"])
    out.add_token_merges(["a b"])
    out.add_token_types([3, 1, 1, 1])
    out.add_eos_token_id(0)
    out.add_bos_token_id(0)
    out.add_chat_template("{{ messages[0].content }}")
    shapes = {"token_embd": (4, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,),
              "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32),
              "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32), "blk.0.ffn_down": (32, 32)}
    for name, shape in shapes.items():
        values = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        stored = kind if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        out.add_tensor(f"{name}.weight", gguf.quants.quantize(values, stored), raw_dtype=stored)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


for kind in ["F32", "F16", "Q8_0", "Q4_1", "Q4_0"]:
    path = here / "corpus" / "gguf" / kind.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    small_gguf(path, gguf.GGMLQuantizationType[kind])
