"""What was fitted on trained models: made by `python -m benchmarks.fates --fit`, not by hand.

Of 66 runs, 30 were fitted on and 36 kept for the test.
"""

from loopscope.evaluation.depth.prognosis_rule import Constants

FITTED = {
    2: Constants(
        {"loss": 0.8523, "moved": 0.5818},
        steady={"loss": 0.9572, "moved": 1.2162},
        spread=2.0,
        width=0.0681,
        level=0.8,
    ),
    4: Constants(
        {"loss": 0.5442, "moved": 0.6317},
        steady={"loss": 1.027, "moved": 0.6346},
        spread=1.0,
        width=0.0675,
        level=0.8,
    ),
}
"""By times the trained depth."""
