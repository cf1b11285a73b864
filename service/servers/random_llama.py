"""Make a tiny Llama with random weights. Run as a script in vLLM's environment: `random_llama.py TOKENIZER FOLDER`.

8 million parameters, bfloat16. Its words are noise; protocol, streaming, cancelling, metrics and cache are real. In
`adapter` below it lies a LoRA adapter, random as well: it makes other noise.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 0
RANK, ADAPTED = 4, ("q_proj", "v_proj")
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def main(tokenizer_file: str, folder: str) -> None:
    """Save model, tokenizer and adapter into one folder."""
    words = Tokenizer.from_file(tokenizer_file)
    words.no_truncation()
    words.no_padding()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    tokenizer.chat_template = CHAT
    torch.manual_seed(SEED)
    shape = LlamaConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_adapter(Path(folder) / "adapter", shape)


def save_adapter(folder: Path, shape: LlamaConfig) -> None:
    """Save an adapter of every layer's attention, in the form of PEFT."""
    weights = {}
    for layer in range(shape.num_hidden_layers):
        for module in ADAPTED:
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}.lora"
            weights[f"{name}_A.weight"] = torch.randn(RANK, shape.hidden_size)
            weights[f"{name}_B.weight"] = torch.randn(shape.hidden_size, RANK)
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    form = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "target_modules": ADAPTED}
    (folder / "adapter_config.json").write_text(json.dumps(form))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
