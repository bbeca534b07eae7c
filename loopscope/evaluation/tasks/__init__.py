"""Benchmarks of lm-evaluation-harness at several depths of a model: scored at all of them from one unroll.

The harness is the only judge: it makes the requests and computes the metrics. What is here answers it.

    harness       the harness itself: whether it is there, its tasks by name, one judgement of them all
    text_scores   log-likelihood of the ends of texts, at several depths from one unroll
    depth_lm      the model that the harness asks: it answers for one depth, and has learned the others by then
    outcome       what the harness found at every depth, as records

Only `harness` and `depth_lm` load lm-evaluation-harness (`pip install 'loopscope[eval]'`).
"""
