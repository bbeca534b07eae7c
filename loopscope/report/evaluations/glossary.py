"""What the words of the section mean."""

EVALUATION_GLOSSARY = (
    (
        "trained depth",
        "the number of loops a model was trained with. Running more is extrapolation: it may help, hold or hurt.",
    ),
    ("helps, holds, hurts", "what more loops than trained do to bits per byte; unclear: the seeds disagree."),
    (
        "within 1 %",
        "loops whose perplexity is at most 1 % above that of the condition's best loop: as good, for most purposes.",
    ),
    ("full depth", "all the loops a model was trained with, for every token."),
    (
        "exit rule",
        "what decides, from what a loop shows, that a sequence or a token needs no more loops. An oracle knows the "
        "labels: it is a bound, not a rule.",
    ),
    (
        "calibrated",
        "a threshold chosen on one part of the text to meet a target; the figures are from another part.",
    ),
    (
        "ideal, allowed, realised",
        "speed-up if only loops cost time; if the counted arithmetic does, readouts included; and as measured.",
    ),
    (
        "separated",
        "a difference whose interval leaves out zero and whose p value stays below 0.05 after Holm's correction.",
    ),
)
