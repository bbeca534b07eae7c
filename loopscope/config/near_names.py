"""The name that was meant: by what other tools call it, and by spelling. For flags and for keys of YAML alike."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

_SAME: Mapping[str, str] = {
    "training.learning_rate": "lr alpha eta step_size",
    "training.final_learning_rate": "min_lr end_lr final_lr",
    "training.weight_decay": "wd l2",
    "training.decay": "decay_what",
    "training.batch": "bs batch_size train_batch_size minibatch",
    "training.accumulation": "grad_accum accum gradient_accumulation gradient_accumulation_steps",
    "training.epochs": "num_epochs n_epochs num_train_epochs epoch",
    "training.steps": "max_steps num_steps n_steps iters max_iters iterations",
    "training.schedule": "scheduler lr_schedule lr_scheduler lr_scheduler_type",
    "training.warmup": "warmup_steps warmup_iters num_warmup_steps",
    "training.clip": "grad_clip clip_grad max_grad_norm gradient_clip clip_grad_norm",
    "training.optimizer": "opt optim optimiser",
    "training.precision": "dtype amp mixed_precision fp16",
    "training.device": "cuda gpu accelerator",
    "training.threads": "cores num_threads n_threads workers jobs j",
    "training.seed": "random_seed random_state rng",
    "training.log_every": "log_interval logging_steps log_steps",
    "training.evaluate_every": "eval_every eval_interval eval_steps",
    "training.checkpoint_every": "save_every save_steps save_interval ckpt_every",
    "model.heads": "n_head n_heads num_heads nhead num_attention_heads",
    "model.layers": "n_layer n_layers num_layers nlayers num_hidden_layers",
    "model.dim": "d_model hidden_size hidden_dim n_embd embed_dim d",
    "model.loops": "k n_loops num_loops recurrences recurrence n_recurrence",
    "model.vocabulary": "vocab vocab_size n_vocab",
    "model.sequence": "seq seq_len seq_length sequence_length block_size context context_length max_length ctx "
    "max_seq_len n_positions",
    "model.initialisation": "init initialization initialise initialize",
    "model.positions": "pos position pos_emb position_embedding",
    "model.readout.kind": "readout",
    "model.injection.kind": "injection",
    "objective.norm_penalty.weight": "penalty norm_penalty",
    "objective.placement": "loss supervision",
    "data.files": "data text texts input_files train_files train_file path",
    "data.corpus": "dataset corpus_name",
    "data.tokenizer.kind": "tokenizer tok",
    "new_tokens": "max_tokens max_new_tokens n_tokens tokens num_tokens",
    "temperature": "temp t",
    "prompt": "input instruction",
    "out": "output output_dir o outdir out_dir save_dir logdir",
    "quiet": "silent q verbose",
    "exit_rule": "rule early_exit",
    "rules": "rule exit_rules",
    "condition": "name experiment method",
    "conditions": "condition",
    "seeds": "seed n_seeds",
    "config": "cfg yaml config_file c",
    "windows": "samples n_windows max_windows",
    "resume": "continue restart",
}
_MEANT: Mapping[str, Sequence[str]] = {
    word: [name for name, words in _SAME.items() if word in words.split()]
    for words in _SAME.values()
    for word in words.split()
}


def near_name(name: str, names: Sequence[str]) -> str | None:
    """Return the one of `names` that was most likely meant, or None where none is near.

    Args:
        name: as it was written: with hyphens or underscores, with or without the sections that it is in.
        names: with underscores and dots between sections; or the keys of one section alone.

    Example:
        >>> near_name("training.lr", ["training.clip", "training.learning_rate"])
        'training.learning_rate'
    """
    written = name.strip("-").replace("-", "_").lower()
    section, _, leaf = written.rpartition(".")
    for meant in () if section else _MEANT.get(leaf, ()):
        if meant in names and "." not in meant:  # the command's own: `--seed` of a study is `--seeds`
            return meant
    by_leaf = [each for each in names if each.rpartition(".")[2] == leaf]
    if by_leaf:  # the name is right, the section is missing or another one
        return min(by_leaf, key=lambda each: (each.rpartition(".")[0] != section, each.count(".")))
    for meant in _MEANT.get(leaf, ()):
        if same := [each for each in names if _ends_alike(meant, each)]:
            return min(same, key=len)
    if near := get_close_matches(written, names, n=1, cutoff=0.7):
        return near[0]
    leaves = {each.rpartition(".")[2]: each for each in reversed(names)}
    if near := get_close_matches(leaf, leaves, n=1, cutoff=0.7):
        return leaves[near[0]]
    near = get_close_matches(written, names, n=1, cutoff=0.5)
    return near[0] if near else None


def _ends_alike(meant: str, name: str) -> bool:
    """Whether a name, which may lack the first sections, is the one meant."""
    return meant == name or meant.endswith(f".{name}") or name.endswith(f".{meant}")
