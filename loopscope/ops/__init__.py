"""Fast operations for a CPU, each beside its plain formula (`reference`); one predicate decides which runs.

That is `dispatch.cpu_ops_apply`, by an operation's name; `training.cpu_ops: off` turns all of them off. An operation is
to stay while it saves at least 2 % of a step's time or peak memory in fp32 or bf16, by `python -m benchmarks.ops` (44M,
8 × 256, fused as in a long run). Gone since: matmuls cut by rows, which suited one build of oneDNN on one machine (on
an AMD EPYC with AVX512-BF16 they were no faster, 2026-11-28), and silu's product, which no step on a CPU reached. What
the others save is not in this table yet: the figures need a quiet machine.

    operation             in place of                                               delete when
    rms_norm              F.rms_norm, which keeps the normalised state in fp32      PyTorch's keeps x and 1/rms
    rms_norm_linear       the normalised state, saved as a matmul's input
    linear                F.linear, whose weight's gradient is summed by autograd
    swiglu                F.silu(gate(x)) * up(x), which keeps four wide tensors
    attention             PyTorch's with dropout, which keeps squares               its fused CPU kernel drops out
    narrow_attention *    the fused kernel in bf16, for heads of up to 32 channels  its bf16 backward is as fast
    dropout *             PyTorch's mask, drawn one double at a time, and kept
    dropout_add *         a dropout and a sum
    add                   hidden + added, in memory of its own
    linear_cross_entropy  the chunked loss, which does the head's product again     F.linear_cross_entropy is exact
    shared_weight *       a sum over loops by autograd
    scratch_buffer        torch.empty
    cast_weight           a cast for each use
    accumulate            add_ of a narrower tensor

    * draws or sums in an order of its own: golden losses are expected to change without it (not tried)
"""
