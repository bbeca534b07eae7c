#!/usr/bin/env bash
# transformers 5.24.0 (tokenizers as it pins them), seen 2026-11-29.
# A folder with a model's config and no file of a tokenizer, as model.save_pretrained leaves it.
# Guess: AutoTokenizer.from_pretrained raises, and says that the folder has no tokenizer, whatever the family.
# Behaviour: for llama it raises ValueError; for gpt2 and qwen3 it returns a tokenizer whose only entry is
# <|endoftext|>, without a warning, and every text becomes no ids at all.
# Output seen:
#   gpt2 GPT2Tokenizer {'<|endoftext|>': 0} []
#   llama ValueError
#   qwen3 Qwen2Tokenizer {'<|endoftext|>': 0} []
# Exits with 1 when this changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet transformers==5.24.0
cd "$place"
"$place/venv/bin/python" - 2>&1 <<'PYTHON' | tee seen.txt
from transformers import AutoTokenizer, GPT2Config, LlamaConfig, Qwen3Config

for config in (GPT2Config(), LlamaConfig(), Qwen3Config()):
    config.save_pretrained(config.model_type)
    try:
        made = AutoTokenizer.from_pretrained(config.model_type, local_files_only=True)
    except Exception as error:
        print(config.model_type, type(error).__name__)
        continue
    print(config.model_type, type(made).__name__, made.get_vocab(), made("hello world")["input_ids"])
PYTHON
grep -qxF "gpt2 GPT2Tokenizer {'<|endoftext|>': 0} []" seen.txt
grep -qxF "llama ValueError" seen.txt
grep -qxF "qwen3 Qwen2Tokenizer {'<|endoftext|>': 0} []" seen.txt
echo "as written above"
