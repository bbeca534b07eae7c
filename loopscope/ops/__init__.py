"""Fast operations for a CPU, each beside its plain formula (`reference`); one predicate decides which runs.

That is `dispatch.cpu_ops_apply`, by an operation's name.
"""
