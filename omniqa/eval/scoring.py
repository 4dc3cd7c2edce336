"""Whether an answer in free text is the right one."""

import re
from dataclasses import dataclass

from omniqa.errors import UsageError
from omniqa.eval.harness_letters import RULES
from omniqa.eval.negations import is_ruled_out, without_letters_ruled_out
from omniqa.eval.questions import LETTERS, SetQuestion
from omniqa.eval.words import normalise, strip_markup

__all__ = ["SCORINGS", "STRICT", "Score", "Scorer", "check_scoring", "normalise", "parse_letter", "score"]

STRICT = "strict"
SCORINGS = (STRICT, *RULES)

_OTHER_SCRIPT = r"[^\W\d_A-Za-zÀ-ɏḀ-ỿ]"  # a letter that is not Latin
_SPACELESS = r"([\u3005-\u30ff\u3400-\u9fff\uac00-\ud7af])"  # Chinese, Japanese, Korean: words without spaces between

# A lone letter beside another script: "答案是B", "정답은 B입니다".
_BESIDE = re.compile(
    rf"(?<={_OTHER_SCRIPT})(?=[A-Za-z](?![\w'])|[A-Za-z]{_OTHER_SCRIPT})"
    rf"|(?<=(?<![A-Za-z0-9])[A-Za-z])(?={_OTHER_SCRIPT})"
)
# Cyrillic and Greek capitals that look like Latin ones. Options are shown with Latin letters, so the one that looks the
# same is meant, not the third of the Cyrillic alphabet. Many are words as well, so punctuation or the end must follow.
_LOOK_ALIKE = re.compile(r"(?<!\w)[АВЕСНІКМОРТХΑΒΕΗΙΚΜΝΟΡΤΧ](?=\s*(?:$|[.):\],;!?\"'»\n]|[-–—]\s))")
_LATIN = str.maketrans("АВЕСНІКМОРТХΑΒΕΗΙΚΜΝΟΡΤΧ", "ABECHIKMOPTXABEHIKMNOPTX")

# A small letter is a letter, and no article or word, in front of these.
_ENDS = rf"""(?=\s*(?:$|[.](?!\w)|[):\],;!"'\n。、](?!=)|{_OTHER_SCRIPT}))"""
_BEFORE = r"(?<![\w°$€£¥#+\\/])(?<!\w')(?<!\d )"  # the C of 25 °C, of 25 C and of /C are no letters
_AFTER = r"(?![\w+#♯♭°%*^=&@$€£¥/\\-]|'(?!d[iıuü]r\b)\w)"  # nor those of C++, A+ and I'm; that of Turkish "B'dir" is
_SMALL = "[a-zà-öø-ÿ]"
_IN_FRONT = re.compile(
    rf"\W*{_BEFORE}(?:([A-Z]){_AFTER}(?=\W*$|\s*[.):\]\n。]|\s+[-–—]\s|[,、](?!\s*\w\b))|([a-z]){_ENDS})"
)
_OR = r"or|and|oder|und|ou|et|o|y|e|или|и|或|和|と|또는"
_NOT_SEVERAL = rf"""(?!\s*(?:(?:{_OR}|/)\s*[(\["']?[A-Z](?!\w)|[,、]\s*[A-Z](?=\W*$|[,、]|\s+(?:{_OR})\b)))"""
_LETTER = rf"""[>(\["']?(?:([A-Z]){_AFTER}{_NOT_SEVERAL}|([a-z]){_ENDS})"""

_OPTION = (
    r"option|choice|choix|opci[oó]n|op[cç][aã]o|opzione|вариант|pilihan|seçenek|lựa\s+chọn|"
    r"选项|選項|選択肢|보기|선택지|الخيار|विकल्प"
)
_ANSWER = (
    r"answer|letter|respuesta|réponse|antwort|resposta|risposta|antwoord|odpowiedź|cevap|jawaban(?:nya)?|đáp\s+án|"
    r"ответ|відповідь|उत्तर|الإجابة|الجواب|答案|选择?|選擇?|答え|正解|正答|回答|정답|답"
)
_IS = (
    r"is|would\s+be|should\s+be|must\s+be|es|est|ist|wäre|lautet|é|è|to|adalah|là|это|है|هي|هو|"
    r"应该是|應該是|应是|應是|是|为|為|は|が|은|는|이|가"
)
_WORD = rf"(?:\b|(?<={_OTHER_SCRIPT}))"  # where a word may begin
# At most one word stands between, and an article: "the answer here is B", "la respuesta correcta es la B".
_ANSWER_IS = re.compile(
    rf"(?i:{_WORD}(?:{_ANSWER})(?:(?:\s+\w+)?\s*{_WORD}(?:{_IS})(?!{_SMALL}))?\s*[:=]?\s*"
    rf"(?-i:(?:the|la|el|le|die|das|der|a|o)\s+)?(?:(?:{_OPTION})\s+)?){_LETTER}"
)
_NAMED = re.compile(rf"(?i:(?:{_OPTION})(?:\s+is)?\s*:?\s*){_LETTER}")
_STANDING = re.compile(  # "A" and "I" are mostly words where others follow
    rf"{_BEFORE}(?:([B-HJ-Z])|([AI])(?! (?!or\b|and\b|is\b|because\b){_SMALL})){_AFTER}|[(\[]([a-z])[)\]]"
)


@dataclass(frozen=True)
class Score:
    """What was made of an answer.

    Attributes:
        said: the letter that was understood, or the words in the form in which they are compared; None: no letter
            found.
        correct: whether it is right.
    """

    said: str | None
    correct: bool


def check_scoring(name: str) -> None:
    """Raises UsageError for a name that is not in SCORINGS."""
    if name not in SCORINGS:
        raise UsageError(f"There is no scoring {name!r}: use {', '.join(SCORINGS)}.", field="scoring")


@dataclass(frozen=True)
class Scorer:
    """How the answers of a set are scored.

    Attributes:
        name: one of SCORINGS.
        layout: the set's; lmms-eval scores Video-MME and WorldSense in different ways.
    """

    name: str = STRICT
    layout: str = ""

    def __post_init__(self) -> None:
        check_scoring(self.name)

    @property
    def task(self) -> str:
        """The harness's task whose rule holds; "" for omniqa's own rule."""
        rules = RULES.get(self.name, {})
        return self.layout if self.layout in rules else next(iter(rules), "")

    def score(self, question: SetQuestion, answer: str) -> Score:
        """Score the model's text: by its letter, or if there are no options by its normalised words."""
        if question.options is None:
            said = normalise(answer)
            return Score(said, said == normalise(question.answer))
        find = parse_letter if self.name == STRICT else RULES[self.name][self.task]
        letter = find(answer, question.options)
        return Score(letter, letter == question.answer)


def score(question: SetQuestion, answer: str) -> Score:
    """Score the model's text strictly."""
    return Scorer().score(question, answer)


def parse_letter(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter that an answer in free text means; None where it means none, or several.

    In this order: an option's text as it stands; a letter alone or in front ("b", "(B)", "B. star"); an option's text
    and nothing else; the last "the answer is B", in some twenty languages; the one option that is named ("option B") or
    whose text is in the answer; the one letter in it.
    """
    if letter := _as_it_stands(answer, options):
        return letter
    words = strip_markup(answer)
    text = _LOOK_ALIKE.sub(lambda match: match[0].translate(_LATIN), _BESIDE.sub(" ", words))
    text = without_letters_ruled_out(text)
    readings = (
        (_in_front, text), (_whole_text, words), (_answer_is, text), (_named, text), (_text_within, words),
        (_standing, text),
    )  # fmt: skip
    letters = dict(_lettered(options))
    return next((letter for read, said in readings if (letter := read(said, options)) and letter in letters), None)


def _as_it_stands(answer: str, options: tuple[str, ...]) -> str | None:
    """An option's text, sign for sign; if that is a lone letter, it rather names an option."""
    if re.fullmatch("[a-z]", normalise(answer)):
        return None
    for form in (str.strip, _exact_words):
        if letter := _only({letter for letter, option in _lettered(options) if form(option) == form(answer)}):
            return letter
    return None


def _exact_words(text: str) -> str:
    return " ".join(strip_markup(text).casefold().split()).rstrip(".。 ")


def _in_front(text: str, options: tuple[str, ...]) -> str | None:
    match = _IN_FRONT.match(text)
    if match:
        return _upper(match)
    # "B star" is the letter with its option's text; "A star" may be no more than a star.
    head, _, rest = text.partition(" ")
    named = dict(_lettered(options)).get(head.upper())
    return head.upper() if named is not None and normalise(rest) == normalise(named) else None


def _whole_text(text: str, options: tuple[str, ...]) -> str | None:
    said = normalise(text)
    return _only({letter for letter, option in _lettered(options) if normalise(option) == said != ""})


def _answer_is(text: str, options: tuple[str, ...]) -> str | None:
    found = [_upper(match) for match in _ANSWER_IS.finditer(text)]
    return found[-1] if found else None


def _named(text: str, options: tuple[str, ...]) -> str | None:
    return _only({_upper(match) for match in _NAMED.finditer(text)})


def _text_within(text: str, options: tuple[str, ...]) -> str | None:
    """The one option in the answer; of "circle" and "red circle" the longer, if that is what is said."""
    said = _spaced(text)
    within = {letter: words for letter, option in _lettered(options) if (words := _spaced(option)) in said and words}
    longest = {
        letter
        for letter, words in within.items()
        if not any(words != other and words in other for other in within.values())
    }
    return _only({letter for letter in longest if not is_ruled_out(within[letter], said)})


def _spaced(text: str) -> str:
    """The normalised words, each between spaces; a character is a word where a script has no spaces."""
    words = re.sub(_SPACELESS, r" \1 ", normalise(text)).split()
    return f" {' '.join(words)} " if words else ""


def _standing(text: str, options: tuple[str, ...]) -> str | None:
    return _only({_upper(match) for match in _STANDING.finditer(text)} & dict(_lettered(options)).keys())


def _lettered(options: tuple[str, ...]) -> list[tuple[str, str]]:
    """The options that are offered: an empty text is none."""
    return [(letter, option) for letter, option in zip(LETTERS, options, strict=False) if option]


def _upper(match: re.Match[str]) -> str:
    return next(filter(None, match.groups())).upper()


def _only(letters: set[str]) -> str | None:
    return letters.pop() if len(letters) == 1 else None
