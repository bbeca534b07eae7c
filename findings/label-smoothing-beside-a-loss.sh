#!/usr/bin/env bash
# torch 2.13.0, transformers 5.24.0, accelerate 1.15.0; Python 3.11, CPU. Seen 2026-11-29.
# A Trainer with label_smoothing_factor and with a loss function of its own (compute_loss_func).
# Guess: refused, or warned of, since one of the two cannot have its way; or the labels that the function gets are smoothed.
# Behaviour: label_smoothing_factor does nothing. No error, no warning; losses are those without it. Without a function
# of one's own the same setting changes the loss.
# Output seen:
#   own loss: 0.0 smoothed alike, 0 warnings
#   the Trainer's loss: smoothed differs
# Exits with 1 when this changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet "${TORCH:-torch==2.13.0}" transformers==5.24.0 accelerate==1.15.0
cd "$place"
"$place/venv/bin/python" - 2>/dev/null <<'PYTHON' | tee seen.txt
import warnings

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
items = [{"input_ids": ids, "labels": ids} for ids in torch.randint(32, (8, 9), generator=torch.Generator().manual_seed(0))]


def own(outputs, labels, num_items_in_batch=None):
    logits, targets = outputs["logits"][:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits, targets)


def first_loss(smoothing, loss):
    torch.manual_seed(0)
    arguments = TrainingArguments(
        "out", max_steps=1, logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False, label_smoothing_factor=smoothing,
    )
    trainer = Trainer(
        LlamaForCausalLM(LlamaConfig(**sizes)), arguments, train_dataset=items, compute_loss_func=loss
    )
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    difference = first_loss(0.5, own) - first_loss(0.0, own)
said = [each for each in caught if "smoothing" in str(each.message)]
print(f"own loss: {difference} smoothed alike, {len(said)} warnings")
print("the Trainer's loss: smoothed", "alike" if first_loss(0.5, None) == first_loss(0.0, None) else "differs")
PYTHON
grep -qxF "own loss: 0.0 smoothed alike, 0 warnings" seen.txt
grep -qxF "the Trainer's loss: smoothed differs" seen.txt
echo "as written above"
