"""Answers in free text are understood as a reader would."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from omniqa.eval.questions import SetQuestion
from omniqa.eval.scoring import normalise, parse_letter, score

OPTIONS = ("moon", "star", "red circle", "circle")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" B.\n", "B"),
        ("(B)", "B"),
        ("[b]", "B"),
        ("B)", "B"),
        ("B: star", "B"),
        ("B. star", "B"),
        ("B.star", "B"),
        ("B star", "B"),
        ("b) a star", "B"),
        ("B - because it shines", "B"),
        ("A, because it shines", "A"),
        ("**B**", "B"),
        ("$\\boxed{B}$", "B"),
        ("<answer>B</answer>", "B"),
        ("The answer is B.", "B"),
        ("the answer is b", "B"),
        ("The correct answer is (B) star.", "B"),
        ("Answer: B", "B"),
        ("ANSWER: B", "B"),
        ("The answer is option B", "B"),
        ("The answer is not A. The answer is B", "B"),
        ("The answer is B. Option A is wrong.", "B"),
        ("The correct option is B", "B"),
        ("I would choose option (b).", "B"),
        ("I think it is B", "B"),
        ("It is (b), I believe", "B"),
        ("Letter C", "C"),
        ("star", "B"),
        ("A star.", "B"),
        ("a star", "B"),
        ("The STAR", "B"),
        ("One can see a star there.", "B"),
        ("The answer is a star.", "B"),
        ("The answer is A", "A"),
        ("A star is shown", "B"),
        ("a red circle", "C"),
        ("There is a red circle to the left.", "C"),
        ("circle", "D"),
        ("Moon or star? I take the second: B", "B"),
        ("A or B", None),
        ("A, B", None),
        ("A and B", None),
        ("E", None),
        ("The answer is Z", None),
        ("I do not know.", None),
        ("a square", None),
        ("Both the moon and the star", None),
        ("At 7 a.m.", None),
        ("", None),
        ("...", None),
    ],
)
def test_letters_in_free_text(answer, letter):
    assert parse_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(("answer", "letter"), [("C", "C"), ("c", "C"), ("T", "A"), ("D. C", "D"), ("A. T", "A")])
def test_where_options_are_letters_themselves_the_options_letter_comes_first(answer, letter):
    assert parse_letter(answer, ("T", "A", "X", "C")) == letter


@pytest.mark.parametrize(("answer", "letter"), [("two", "B"), ("2", "B"), ("There are 2.", "B"), ("B", "B")])
def test_numbers_are_options_in_words_and_digits(answer, letter):
    assert parse_letter(answer, ("1", "2", "3", "4")) == letter


def test_more_than_four_options_have_letters():
    options = ("uno", "due", "tre", "quattro", "cinque", "sei")
    assert parse_letter("F", options) == "F"
    assert parse_letter("cinque", options) == "E"
    assert parse_letter("F", options[:4]) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Red circle.", "a  red\ncircle"),
        ("The BEGINNING", "beginning"),
        ("two", "2"),
        ("twenty", "20"),
        ("red circle, beep; blue star, bell", "Red circle, beep. Blue star, bell."),
        ("1,000", "1000"),
        ("ﬁsh", "fish"),
        ("minus five", "-5"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("－５", "-5"),
        ("٥", "5"),
        (".5", "0.5"),
        ("$1,000", "$1000"),
        ("5 €", "€5"),
        ("5 dollars", "$5"),
        ("$-5", "-$5"),
        ("50 percent", "50%"),
        ("５０％", "50 %"),
        ("5 degrees Celsius", "5℃"),
        ("½", "1/2"),
        ("10：30.", "10:30"),
        ("**-5**", "-5"),
        ("$-5$", "-5"),
        ("a T-shirt", "T shirt"),
        ("\u200fstar\u200f", "star"),
        ("10:30 a.m.", "10:30am"),
        ("5 ºC", "5°C"),
    ],
)
def test_short_answers_that_are_the_same(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A", ""), ("A", "the"), ("3.5", "35"), ("red circle", "red circles"), ("5", "0.5"),
        ("-5", "5"), ("+5", "-5"), ("±5", "5"), ("$5", "5"), ("$5", "€5"), ("5%", "5"), ("5°", "5"), ("5°C", "5°F"),
        (".5", "5"), ("5²", "52"), ("5½", "51/2"), ("10:30", "10.30"), ("10:30", "1030"), ("1/2", "12"), ("3-5", "35"),
        ("1,0005", "10005"), ("<5", ">5"), ("C++", "C"), ("C#", "C"), ("C♯", "C"), ("A+", "A-"), ("i++", "i--"),
        ("*p", "&p"), ("foo_bar", "foobar"), ("x == y", "x != y"), ("?", "!"), ("+", "-"), ("→", "←"), ("कि", "का"),
        ("10:30 am", "10:30 pm"),         ("10:30 a.m.", "10:30"), ("a.b", "b"), ("f()", "f"), ("!x", "x"),
    ],
)  # fmt: skip
def test_short_answers_that_differ(one, other):
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("-8", ("94107", "-8", "8"), "B"),
        ("8", ("94107", "-8", "8"), "C"),
        ("It is -8.", ("94107", "-8", "8"), "B"),
        ("x = −8", ("94107", "-8", "8"), "B"),
        ("**-8**", ("94107", "-8", "8"), "B"),
        ("It is minus five.", ("5", "-5", "6"), "B"),
        ("It was −5 °C.", ("5°C", "-5°C", "15°C"), "B"),
        ("$5", ("5", "$5"), "B"),
        ("$5$", ("5", "$5"), "A"),
        ("It costs 5 dollars", ("5", "$5"), "B"),
        ("50%", ("50", "50%"), "B"),
        ("At 10:30.", ("10.30", "10:30"), "B"),
        ("It is written in C++.", ("Java", "C", "C++", "C#"), "C"),
        ("C#", ("Java", "C", "C++", "C#"), "D"),
        ("C++", ("Java", "Python", "Go", "Rust"), None),
        ("The answer is C++", ("Java", "Python", "Go", "Rust"), None),
        ("It is 25 °C outside", ("hot", "warm", "cold", "icy"), None),
        ("The blood group is O-.", ("A+", "A-", "B+", "O-"), "D"),
        ("A-", ("A+", "A-", "B+", "O-"), "B"),
        ("MB", ("Mb", "MB"), "B"),
        ("from 3 to 5", ("35", "3-5", "3", "5"), None),
        ("他是A型血", ("O型", "A型", "B型"), "B"),
        ("是深红色的", ("红色", "深红色"), "B"),
        ("빨간색입니다", ("파란색", "빨간색"), "B"),
    ],
)
def test_signs_and_symbols_are_part_of_what_is_said(answer, options, letter):
    assert parse_letter(answer, options) == letter


NUMBERS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-", "+", "±", "<", ">", "~"]),
        st.sampled_from(["", "$", "€", "£"]),
        st.sampled_from(["0", "5", "50", "0.5", "10:30", "10.30", "1/2", "5-50"]),
        st.sampled_from(["", "%", "°", "°C", "°F"]),
    ),
)
CODE = st.sampled_from(
    ["C", "C++", "C#", "F#", "c--", "i++", "&p", "*p", "p", "a==b", "a!=b", "a<b", "a>b", "ab", "a_b"]
)


@settings(deadline=None)
@given(st.lists(NUMBERS | CODE, min_size=2, max_size=6, unique_by=str.casefold), st.data())
def test_options_that_differ_only_by_signs_are_told_apart(options, data):
    said = data.draw(st.sampled_from(options))
    assume(not said.isalpha())  # a letter alone is a letter
    right = "ABCDEF"[options.index(said)]
    assert parse_letter(said, tuple(options)) == right
    assert parse_letter(f"The answer is {said}.", tuple(options)) == right
    assert all(score(SetQuestion(0, "clip", "?", one), other).correct == (one == other)
               for one in options for other in options)  # fmt: skip


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_right_answer_to_itself(text):
    assert score(SetQuestion(0, "clip", "?", text), text).correct


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=5, unique_by=str.strip), st.data())
def test_any_option_said_word_for_word_gives_its_letter(options, data):
    said = data.draw(st.sampled_from(options))
    assume(len(normalise(said)) > 1 or not normalise(said).isalpha())  # a letter alone is a letter
    assert parse_letter(said, tuple(options)) == "ABCDE"[options.index(said)]


@settings(deadline=None)
@given(st.lists(NUMBERS | CODE | st.sampled_from(["red", "circle", "five", "a"]), min_size=1, max_size=4))
def test_case_spaces_and_punctuation_around_change_nothing(words):
    said = " ".join(words)
    assume("*" not in said)  # stars around it would be Markdown's
    for form in (f"  {said}.\n", said.swapcase(), f"“{said}”", f"**{said}**", said.replace(" ", ",  ")):
        assert normalise(form) == normalise(said)


# In every language a letter is said alone or within brackets, in bold, in full width.
SENTENCES = (
    "{}", "{}.", "{}。", "{}:", "The answer is {}.", "答案是{}", "答案：{}", "正确答案是{}。", "选{}", "选择{}。",
    "应该是{}", "应选{}", "{}选项", "選擇{}", "答えは{}です", "正解は{}です。", "{}だと思います",
    "정답은 {}입니다", "정답: {}", "답은 {}이다.", "{}번", "Ответ: {}", "Правильный ответ — {}.",
    "Ответ: вариант {}", "La respuesta es {}", "La respuesta correcta es la {}.", "La réponse est {}.",
    "La bonne réponse est la {}", "Die richtige Antwort ist {}.", "Antwort: {}", "A resposta correta é {}",
    "La risposta è {}.", "Het antwoord is {}", "Odpowiedź: {}", "Cevap: {}", "Jawabannya adalah {}.",
    "Đáp án là {}", "الإجابة هي {}", "الجواب: \u200f{}\u200f", "उत्तर {} है", "คำตอบคือ{}", "Απάντηση: {}",
)  # fmt: skip
WRITTEN = ("{}", "({})", "**{}**", "“{}”", "`{}`", "【{}】")


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("written", WRITTEN)
def test_letters_in_other_languages(sentence, written):
    for letter in "ABCD":
        for form in (letter, chr(ord(letter) + 0xFEE0)):  # full width
            said = sentence.format(written.format(form))
            assert parse_letter(said, ("红色", "蓝色", "绿色", "黄色")) == letter, said


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("Ответ: В", "B"),  # Cyrillic letters from here on
        ("С", "C"),
        ("А) потому что", "A"),
        ("Ответ: В, потому что светит", "B"),
        ("В видео показан круг", None),
        ("Ответ: Б", None),
        ("Απάντηση: Β", "B"),  # Greek
    ],
)
def test_a_letter_that_looks_like_a_latin_one_is_read_as_it_looks_unless_it_is_a_word(answer, letter):
    assert parse_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize("answer", ["答案是A或B", "选B和C", "The answer is A or B", "O círculo vermelho", "A água"])
def test_two_letters_or_a_word_are_no_letter(answer):
    assert parse_letter(answer, OPTIONS) is None


def test_an_answer_without_a_letter_is_wrong_and_unparsed():
    question = SetQuestion(0, "clip", "Which?", "B", OPTIONS)
    assert (score(question, "no idea").said, score(question, "no idea").correct) == (None, False)
    assert (score(question, "C").said, score(question, "C").correct) == ("C", False)
    assert score(question, "the star").correct


def test_short_answers_are_right_if_their_words_are():
    question = SetQuestion(0, "clip", "How many?", "2")
    assert score(question, "Two.").correct
    assert not score(question, "two stars").correct
    assert not score(question, "").correct


def test_options_are_worded_as_nanos_are():
    from omniqa.nano.questions import NanoQuestion

    ours = SetQuestion(0, "clip", "What is heard?", "B", ("hum", "beep", "bell", "voice"))
    nanos = NanoQuestion("heard", "audio recognition", "audio", ours.text, "B", ours.options, ())
    assert ours.prompt() == ours.prompt("Answer briefly.") == nanos.prompt
    assert SetQuestion(0, "clip", "What is heard?", "beep").prompt() == "What is heard?"
    assert SetQuestion(0, "clip", "What is heard?", "beep").prompt("Briefly.") == "What is heard?\nBriefly."


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("not A", None),
        ("The answer is not B", None),
        ("Definitely not C.", None),
        ("It can't be D", None),
        ("Neither A nor B", None),
        ("Everything but A", None),
        ("A is not correct", None),
        ("答案不是A", None),
        ("Bではありません", None),
        ("A가 아니다", None),
        ("Not A, it is C", "C"),
        ("Not A or B; D", "D"),
        ("It is B rather than A", "B"),
        ("Rather than A, B", "B"),
        ("C instead of (A)", "C"),
        ("B is more likely than A", "B"),
        ("It's B, not A", "B"),
        ("(A) is wrong, (C) is right", "C"),
        ("A and B are wrong, so it is C", "C"),
        ("It must be C since A, B and D can be ruled out", "C"),
        ("The answer isn't A, it's D", "D"),
        ("I don't think it is A. It is B.", "B"),
        ("B is not wrong", "B"),
        ("答案不是A，是B", "B"),
        ("不选A，选C", "C"),
        ("A不对，B对", "B"),
        ("是B而不是A", "B"),
        ("Aではなく、Bです", "B"),
        ("AじゃなくてB", "B"),
        ("정답은 A가 아니라 B입니다", "B"),
        ("Nicht A, sondern B", "B"),
        ("Ce n'est pas A mais B", "B"),
        ("No es A sino B", "B"),
        ("None of A, B, C; it's D", "D"),
        ("A: no. B: yes.", "B"),
        ("A is definitely wrong", None),
        ("Aは違います。Bです", "B"),
        ("A는 정답이 아닙니다", None),
        ("排除A和B，选C", "C"),
        ("No doubt it is C", "C"),
        ("none other than B", "B"),
        ("I'm not sure, maybe B", "B"),
        ("Why not B? The answer is C", "C"),
        ("не A, а B", "B"),
        ("It is not the moon", None),
        ("without a star", None),
        ("Not the moon, the star", "B"),
        ("A star rather than a moon", "B"),
        ("The moon isn't shown; the star is", "B"),
        ("There is no star, only a moon", "A"),
        ("The Answer is A. No wait, the answer is B", "B"),
    ],
)
def test_what_is_ruled_out_is_no_answer(answer, letter):
    assert parse_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"), [("not moving", "B"), ("It is not moving.", "B"), ("moving", "A"), ("It is moving.", "A")]
)
def test_a_negation_that_an_option_holds_is_part_of_it(answer, letter):
    assert parse_letter(answer, ("moving", "not moving", "gone")) == letter


CAPITALS = st.sampled_from("ABCD")


@settings(deadline=None)
@given(st.lists(CAPITALS, min_size=2, max_size=2, unique=True), st.data())
def test_of_two_letters_the_one_that_is_not_ruled_out_counts(letters, data):
    right, wrong = letters
    form = data.draw(st.sampled_from(["{}", "({})", "option {}", "**{}**"]))
    sentence = data.draw(
        st.sampled_from(
            [
                "It is {right}, not {wrong}.", "{right} rather than {wrong}", "not {wrong} but {right}",
                "{wrong} is wrong; {right} is right", "I would say {right} instead of {wrong}",
                "选{right}，不选{wrong}", "不是{wrong}，是{right}", "{wrong}ではなく{right}です",
                "{wrong}가 아니라 {right}입니다",
            ]
        )
    )  # fmt: skip
    said = sentence.format(right=form.format(right), wrong=form.format(wrong))
    assert parse_letter(said, ("红色", "蓝色", "绿色", "黄色")) == right, said
