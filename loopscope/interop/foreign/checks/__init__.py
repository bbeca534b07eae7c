"""Whether a traced model computes what the module's own forward does. `wrap` refuses or warns where it does not.

Each looks at one thing:

    agreement    logits against the forward's own
    gradients    autograd against finite differences
    other_weights  the same with other weights, so that no coincidence of these passes for agreement
    gate         a named exit gate reads what the forward gives it, and gives a logit
    side_paths   what reaches a later loop, or the head, past the block's last output
    side_states  what else the block returns and its next call reads
    differing_loops   what is remarked of loops that differ, and that nothing runs deeper
    lifted_gradients   loops under `torch.no_grad`: they have a gradient, and are named
"""
