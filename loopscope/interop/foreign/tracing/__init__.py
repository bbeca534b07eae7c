"""A stranger's forward pass, followed loop by loop: recorded, and run again with the block's calls answered.

From names to a model:

    module_paths   dotted names to parts of a module
    loop_count     how many loops a forward runs, set for a while
    calls          calls of a module's parts: recorded, and made again with another hidden state
    own_forward    a module's own forward: what it is called with, and where its logits are
    forward_runs   repeatable runs of a whole forward, and its logits
    trace          what one run leaves behind
    answers        what past loops are answered with: the state, and what goes on beside it
    gradient_prefix   loops without a gradient, by the module's own setting
    interceptor    runs whose block calls are answered by a plan
    side_state     what goes from loop to loop beside H_k, in one unroll
    traced_model   all of it as a looped model
"""
