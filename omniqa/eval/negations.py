"""What an answer rules out: "not A", "B rather than A", "A is wrong", in the languages in which letters are read."""

import re

_AFTER = r"(?![\w+#♯♭°%*^=&@$€£¥/\\-]|'(?!d[iıuü]r\b)\w)"  # as scoring's: C++ and I'm are no letters
_GOES_ON = r"but|or|and|nor|it|so|because|since|as|is|are|was|were|can|could|rather|instead|then|which|over"
_CAPITAL = rf"(?-i:(?:[B-HJ-Z]|[AI](?! (?!(?:{_GOES_ON})\b)[a-z])){_AFTER})"  # "not A man" rules out no letter
_OPENS, _CLOSES = r"""[(\["'“]{0,3}""", r"""[)\]"'”]{0,3}"""
_LETTER = rf"(?:(?:option|choice|letter|选项|選項)s?\s*)?(?:{_OPENS}{_CAPITAL}{_CLOSES}|[(\[](?-i:[a-z])[)\]])"
_OR = r"or|and|nor|oder|und|noch|ou|et|ni|o|y|e|или|и|ни|或|和|と|や|또는|/"
_LETTERS = rf"{_LETTER}(?:(?:\s*[,、]\s*{_LETTER}){{0,9}}[,、]?\s*(?:{_OR})\s*{_LETTER})?"

_NOT = (
    r"not|never|neither|cannot|nor|without|(?<!no\s)(?<!without\s)(?<!any\s)doubt|rather\s+than|instead\s+of|as\s+opposed\s+to|"
    r"(?<!other\s)(?<!more\s)than|(?<!no\s)(?<!none\s)(?<!nothing\s)other\s+than|over|"
    r"unlike|except(?:\s+for)?|(?:every\w*|all|any\w*)\s+but|rul(?:e|es|ed|ing)\s+out|eliminat\w+|exclud\w+|"
    r"nicht|kein\w*|weder|statt|anstatt|pas|plutôt\s+que|au\s+lieu\s+de|ni|sauf|no|en\s+lugar\s+de|en\s+vez\s+de|"
    r"não|em\s+vez\s+de|ao\s+invés\s+de|nem|non|invece\s+di|anziché|piuttosto\s+che|niet|in\s+plaats\s+van|nie|"
    r"zamiast|не|вместо|кроме|ни|bukan|không\s+phải|ليست?"
)
_FILLED = (
    r"be|is|it|it's|it\s+is|think|believe|say|that|the|correct|right|answer|option|choice|to|für|"
    r"est|la|le|es|ist|è|é|to|là|это|adalah"
)
_BEFORE = rf"(?:\b(?:{_NOT})|n['’]t)(?:\s+(?:{_FILLED}))*\s+"
_BEFORE_CJK = (
    r"(?:而?(?:不|别|別)(?:应该?|應該?|该|該|能|会|會|可能)?(?:是|选择?|選擇?|为|為)|[并並]?非|排除(?:了)?|ไม่ใช่)\s*"
)
_BE = r"(?:is|are|was|were|can|could|do|does|did|has|have|would|will|should|must)"
_WRONG = r"(?:wrong|incorrect|false|untrue|impossible|unlikely|out\b|ruled\s+out|eliminated|excluded)"
_BEHIND = (
    rf"\s+{_BE}(?:\s+be)?\s+(?:(?:all|both|\w+ly)\s+)?{_WRONG}"
    r"|\s*[:=]\s*(?:no|wrong|incorrect|false)\b|\s*≠"
    rf"|\s+(?:{_BE}(?:n['’]t|\s+not|\s+never)|cannot)\b(?!\s+(?:be\s+)?(?:{_WRONG}|only|just|merely))"
    r"|\s*(?:选项|選項)?\s*(?:[都均]?(?:是|就)?(?:不对|不對|不正确|不正確|错|錯|不符|不成立|不可能|有误|有誤|不是)|(?:可以|可)?(?:被)?排除)[误誤]?的?"
    r"|\s*は\s*(?:違|間違|誤|不正解)\w*|\s*(?:は\s*(?:正解|正答|答え)\s*)?(?:では|じゃ|で)\s*(?:なく|ない|ありません|なし)て?|\s*より(?!も?(?:良|よ)い)も?"
    r"|\s*(?:가|이|은|는)?\s*(?:정?답(?:이|은)?\s*)?(?:아니|아닌|아님|아닙|틀)\w*|\s*말고"
    r"|\s+(?:ist|sind)\s+falsch|\s+est\s+faux|\s+es\s+incorrect[ao]|\s+değil\w*|\s+नहीं|\s+неверн\w+|\s+неправильн\w+"
)
_NONE_OF = rf"\bnone\s+of\s+{_LETTER}(?:\s*(?:[,、]|[,、]?\s*(?:{_OR}))\s*{_LETTER})*"
_RULED_OUT = re.compile(
    rf"(?i:{_NONE_OF}|(?:{_BEFORE}|{_BEFORE_CJK}){_LETTERS}|(?<![\w°$€£¥#+\\/]){_LETTERS}(?:{_BEHIND}))"
)

_WORDS_BEFORE = r"not|never|neither|cannot|nor|n t|t|no|without|rather than|instead of|than|unlike|except|but not"
_WORDS_BETWEEN = r"be|is|it|it s|see|show|that|there|really|any"


def without_letters_ruled_out(text: str) -> str:
    """The text without the letters that it rules out, and without what rules them out."""
    return _RULED_OUT.sub(" ", text)


def is_ruled_out(words: str, said: str) -> bool:
    """Whether each mention of an option in an answer rules it out; both as normalised words between spaces."""
    option = re.escape(words.strip())
    mentions = len(re.findall(rf"(?= {option} )", said))
    before = rf" (?:{_WORDS_BEFORE})(?: (?:{_WORDS_BETWEEN}))* (?={option} )"
    behind = rf" {option} (?={_BE}(?:n t| not| never| t) )(?!\w+ not (?:{_WRONG}))| {option} (?={_BE} {_WRONG} )"
    return 0 < mentions <= len(re.findall(before, said)) + len(re.findall(behind, said))
