"""Which language a text is in, by its script and its small words: a good guess, without a model."""

import re
from collections import Counter

UNKNOWN = "und"  # as ISO 639-2 calls it

_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = {  # of which each is mostly one language's
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "zh": re.compile(r"[\u4e00-\u9fff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "th": re.compile(r"[\u0e00-\u0e7f]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "he": re.compile(r"[\u0590-\u05ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "el": re.compile(r"[\u0370-\u03ff]"),
    "uk": re.compile(r"[іїєґ]", re.IGNORECASE),
    "ru": re.compile(r"[\u0400-\u04ff]"),
}
SMALL_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the and you is are was to of in it my i that for have not with this be on but me your at has "
        "we what when would could please they them there been from will can how still about just very any "
        "some were their than then our",
        "de": "der die das und ich ist nicht sie es ein eine zu mit für auf den mein meine habe wir war "
        "noch bitte wo was von dem auch wie aber seit ihr sind",
        "fr": "le la les et je est pas vous un une des du que pour dans mon ma ce avec sur nous mais bonjour "
        "au ne suis été votre qui",
        "es": "el la los las y es no un una que de en mi por para con se su pero hola está muy lo yo al mis",
        "it": "il lo la gli e è non un una che di in mio mia per con si ma sono ho del della le grazie vi",
        "pt": "o a os as e é não um uma que de em meu minha por para com se mas eu está muito do da olá",
        "nl": "de het een en ik is niet je u van op mijn dat te met voor wij zijn maar heb nog graag er",
        "pl": "i w na nie się jest to z do że mój moje moja mnie jak ale po czy co proszę mam",
        "sv": "och jag är inte det en ett att på min mitt för med har vi men som till av den hej",
        "tr": "ve bir bu için ile çok ama ben mi değil var yok nasıl daha gibi benim lütfen siparişim",
    }.items()
}


def language_of(text: str) -> str:
    """The ISO 639-1 code of the text's language; `und` where nothing tells."""
    letters = sum(character.isalpha() for character in text)
    for language, script in _SCRIPTS.items():
        if len(script.findall(text)) * (20 if language in ("ja", "uk") else 3) > letters:
            return language
    words = Counter(word.casefold() for word in _WORD.findall(text))
    scores = {
        language: sum(count for word, count in words.items() if word in small)
        for language, small in SMALL_WORDS.items()
    }
    best = max(scores, key=lambda language: scores[language])  # of equals, the first
    return best if scores[best] else UNKNOWN
