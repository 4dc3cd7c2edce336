"""Numbers, times and stages in words."""

_TO = "\N{EN DASH}"


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 clip", "2 clips"."""
    return f"{number} {what}{'s' * (number != 1)}"


def asked_again(files: int) -> str:
    """That so many files have changed since lines were written about them."""
    if files == 1:
        return "1 file has changed since it was asked about; it is asked about again"
    return f"{files} files have changed since they were asked about; they are asked about again"


def about(seconds: float) -> str:
    """A time in words: "about 2 minutes"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"about {counted(minutes, 'minute')}"
    return f"about {round(minutes / 60)} hours"


def span(start: float, end: float) -> str:
    """A part of a clip: "2–4 s", or from a minute on "1:02–1:04"."""
    if end >= 60:
        return f"{_clock(start)}{_TO}{_clock(end)}"
    return f"{start:.3g}{_TO}{end:.3g} s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def encodable(text: str, encoding: str) -> str:
    """The text, in simpler signs where `encoding` lacks the better ones."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace(" · ", ", ").replace(_TO, "-")
    return text


def percent(share: float) -> str:
    """A share in percent; below 1 % with two digits."""
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"
