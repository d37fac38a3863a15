"""What the licences of corpora say about passing on what is made from them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CorpusLicence:
    """The terms of a corpus, and whether they forbid to pass on its features."""

    terms: str
    forbids_sharing: bool = False


_MSP = CorpusLicence(
    "its academic licence is given to one group, and forbids to pass on the data", True
)
LICENCES: dict[str, CorpusLicence] = {
    "iemocap": CorpusLicence(
        "its release form gives the data to the group that signed it, for research, and forbids to "
        "pass it on",
        True,
    ),
    "msp-improv": _MSP,
    "msp-podcast": _MSP,
    "meld": CorpusLicence(
        "GPL-3.0, as its authors publish it; the clips are from a television series"
    ),
    "crema-d": CorpusLicence("Open Database License, its contents Database Contents License"),
    "synthetic": CorpusLicence("made by mser, without a recording of a person"),
}
"""Dataset → its terms, for the corpora that mser knows."""
UNKNOWN = CorpusLicence("not known to mser: ask whoever gave you the corpus")
