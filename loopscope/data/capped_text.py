"""Text that the size caps leave out, which is said where it is text of one's own."""

from loopscope.data.config import DataConfig
from loopscope.data.corpora import FilesCorpus, build_corpus


def capped_text_note(config: DataConfig) -> str | None:
    """Return what to say of files that are longer than what is read of them; None where all is read.

    Raises:
        ValueError: no such file.
    """
    corpus = build_corpus(config) if config.corpus == "files" else None
    if not isinstance(corpus, FilesCorpus):
        return None
    said = [
        f"{most / 1e6:,.1f} of {whole / 1e6:,.1f} MB of text to {what} (--data.{setting} N reads more, None all)"
        for most, whole, what, setting in (
            (config.max_bytes, corpus.train_bytes(), "train on", "max-bytes"),
            (config.max_validation_bytes, corpus.validation_bytes(), "validate on", "max-validation-bytes"),
        )
        if most is not None and most < whole
    ]
    return f"read {', and '.join(said)}" if said else None
