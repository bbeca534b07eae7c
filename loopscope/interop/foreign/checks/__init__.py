"""Whether a traced model computes what the module's own forward does. `wrap` refuses or warns where it does not.

Each looks at one thing:

    agreement    logits and gradients against the forward's own
    gate         a named exit gate reads what the forward gives it, and gives a logit
    side_paths   what reaches a later loop, or the head, past the block's last output
"""
