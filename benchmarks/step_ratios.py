"""What `benchmarks.train_step` says of seconds and memory: medians over rounds of the ratios within a round."""

import statistics
from collections.abc import Mapping, Sequence


def figures(
    groups: Sequence[Mapping[str, Sequence[float]]],
    memory: Mapping[str, float],
    flops: Mapping[str, float],
    weights: Mapping[str, float],
    precisions: Sequence[str],
    main_one: str,
) -> dict[str, object]:
    """Ratios by name; None of what did not run. The worse of two precisions is the headline."""

    def ratios(over: str, under: str) -> list[float]:
        group = next((group for group in groups if over in group and under in group), None)
        if group is None:
            return []
        return [one / other for one, other in zip(group[over], group[under], strict=True)]

    def ratio(over: str, under: str) -> float | None:
        return round(statistics.median(found), 3) if (found := ratios(over, under)) else None

    def share(over: str, under: str) -> float | None:
        return round(memory[over] / memory[under], 3) if over in memory and under in memory else None

    def of_whole(over: str, under: str) -> float | None:
        if over not in memory or under not in memory:
            return None
        return round((memory[over] + weights[over]) / (memory[under] + weights[under]), 3)

    speedups = {dtype: ratio(f"baseline {dtype}", f"ours {dtype}") for dtype in precisions}
    shares = {dtype: share(f"ours {dtype}", f"baseline {dtype}") for dtype in precisions}
    spread = {dtype: sorted(ratios(f"baseline {dtype}", f"ours {dtype}")) for dtype in precisions}
    dense, terminal, deep = f"ours {main_one}", f"terminal {main_one}", f"unlooped {main_one}"
    both = dense in flops and terminal in flops
    return {
        "speedup_vs_baseline": min((one for one in speedups.values() if one is not None), default=None),
        "memory_ratio_vs_baseline": max((one for one in shares.values() if one is not None), default=None),
        "dense_over_terminal_time": ratio(dense, terminal),
        "bf16_over_fp32": ratio("ours fp32", "ours bf16"),
        "speedup_by_dtype": speedups,
        "speedup_range_by_dtype": {
            dtype: [round(found[0], 3), round(found[-1], 3)] for dtype, found in spread.items() if found
        },
        "memory_ratio_by_dtype": shares,
        "speedup_vs_masked_by_dtype": {
            dtype: ratio(f"masked {dtype}", f"ours {dtype}") for dtype in precisions
        },
        "dense_over_terminal_flops": round(flops[dense] / flops[terminal], 3) if both else None,
        # The same loss on both sides: the last loop's, and that of the last layer.
        "looped_over_unlooped_tokens_per_second": ratio(deep, terminal),
        "looped_over_unlooped_memory": of_whole(terminal, deep),
    }
