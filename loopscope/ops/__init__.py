"""Fast operations for a CPU, each beside its plain formula (`reference`); one predicate decides which runs.

That is `dispatch.cpu_ops_apply`, by an operation's name; `training.cpu_ops: off` turns all of them off. An operation is
to stay while it saves at least 2 % of a step's time or peak memory in fp32 or bf16, by `python -m benchmarks.ops`. The
table has what a step's peak memory grows by without one: 44M, 8 × 256, fused as in a long run, one thread, an AMD EPYC
with AVX512-BF16, 2026-11-28. One that does nothing at this size read -0.5 and -4.8 %, so smaller figures are noise. All
off: 220 % (bf16) and 163 % (fp32) more memory, 41 and 22 % more time.

    operation             in place of                                  memory bf16, fp32   delete when
    rms_norm              F.rms_norm, which keeps the state in fp32    36, 27 %            PyTorch's keeps x and 1/rms
    rms_norm_linear       the normed state, saved as a matmul's input  12, 11 %
    linear                F.linear, its gradient summed by autograd    4, 7 %
    swiglu                F.silu(gate(x)) * up(x): four wide tensors   39, 50 %
    attention             PyTorch's with dropout, which keeps squares  134, 82 %           its CPU kernel drops out
    narrow_attention *    the fused bf16 kernel, heads to 32 channels  none; laptop: time  its bf16 backward is as fast
    dropout_add *         a dropout and a sum                          10, 4 %
    add                   hidden + added, in memory of its own         0, 6-9 %
    linear_cross_entropy  the chunked loss: the head's product again   9, 14 %             PyTorch's bf16 loss is exact
    shared_weight *       a sum over loops by autograd                 3, 17 %
    scratch_buffer        torch.empty                                  1, 6-10 %
    cast_weight           a cast for each use                          0, 3-6 %

    one_token             a layer's modules, in cached generation      none; docs/results/2026-11-30-generation.md

    `wide_sum` is none of them: it sums a weight's gradient in fp32 where autocast would in bf16, on any device.

    * draws or sums in an order of its own: golden losses change without it

In bf16 no step was slower without cast_weight (-1.4 %) or scratch_buffer (-1.7 %). narrow_attention is for laptop
sizes: there a step takes 28 % longer without it. What saved neither 2 % of time nor of memory is gone: masks for a
dropout that stands alone, and an addition that widens as it goes. All figures: docs/results/2026-11-28-cpu-ops.md.
"""
