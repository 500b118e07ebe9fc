"""Keys by which listings of object stores have been known to go wrong, as data: what they look like, and why.

The shapes follow the listing cases that public suites for S3 (ceph/s3-tests) try; names and words are ours. Each corpus
is listed whole at several page sizes, by its prefixes, and from its starts, on every store; and synced.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Corpus:
    name: str
    sentence: str
    keys: tuple[str, ...]
    prefixes: tuple[str, ...] = ()  # also some that no key has
    starts: tuple[str, ...] = ()  # also some that are no keys


def ascii_but(left_out: str) -> tuple[str, ...]:
    return tuple(chr(code) for code in range(0x21, 0x7F) if chr(code) not in left_out)


CORPORA = [
    Corpus("nothing", "An empty bucket is a listing, too.", (), ("a",), ("a",)),
    Corpus("a single letter", "The smallest key there is.", ("k",), ("k", "kk"), ("j", "k", "l")),
    Corpus(
        "three words",
        "Pages of one, two and three keys end before, at and after the last.",
        ("cedar", "birch", "alder"),
        ("b", "birch", "birches", "ced", "d"),
        ("a", "alder", "bz", "cedar", "zoo"),
    ),
    Corpus(
        "folders",
        "Keys with slashes beside keys without, as cameras write them.",
        ("drive/front/1", "drive/front", "map", "night/7", "drive.txt"),
        ("drive", "drive/", "drive/front", "drive/front/", "n", "night/"),
        ("drive", "drive/", "drive/front", "drive0", "map"),
    ),
    Corpus(
        "folders with odd names",
        "A plus and a space in the names of folders are the first to be mangled in a query.",
        ("lot+2/a", "lot/a/b", "old lot/a", "lot+b"),
        ("lot+", "lot+2/", "lot ", "lot", "old "),
        ("lot", "lot+", "lot+2/a", "lot/"),
    ),
    Corpus(
        "a folder that is all there is",
        "One key that ends with the delimiter.",
        ("only/",),
        ("only", "only/", "only//"),
        ("only", "only/"),
    ),
    Corpus(
        "markers and what is in them",
        "The marker of a folder sorts before everything in it.",
        ("f/", "f/a", "f/b/", "f/b/c", "f.jpg", "f0"),
        ("f/", "f/b", "f/b/"),
        ("f", "f/", "f/b/", "f/z"),
    ),
    Corpus(
        "slashes upon slashes",
        "a, a/, a// and /a are four objects.",
        ("a", "a/", "a//", "a//b", "/a", "//"),
        ("a", "a/", "a//", "/", "//"),
        ("/", "a", "a/", "a//"),
    ),
    Corpus(
        "each the beginning of the next",
        "A prefix of a key is a key.",
        tuple("listing"[:length] for length in range(1, 8)),
        tuple("listing"[:length] for length in range(1, 8)),
        ("lis", "listing", "listings"),
    ),
    Corpus(
        "a folder named like a file",
        "An object and objects below its name.",
        ("car", "car/door", "car/door/handle", "car-2"),
        ("car", "car/", "car/door", "car/door/"),
        ("car", "car/", "car/door"),
    ),
    Corpus(
        "around the slash",
        "Characters that sort just before and just after the slash, so that folders and neighbours interleave.",
        ("p-q", "p.q", "p/q", "p0q", "p q", "p!q", "p/q/r", "p/q-r"),
        ("p", "p/", "p/q", "p."),
        ("p", "p-q", "p.", "p/", "p/q", "p/q/", "p0"),
    ),
    Corpus(
        "leading underscores",
        "Names that begin with an underscore, which some servers keep for themselves.",
        ("_", "__", "_ _", "_ ", "_shape_", "_one/a", "_one/b/c", "_two/a", "plain"),
        ("_", "__", "_one", "_one/", "_t"),
        ("_", "_one/a", "_z"),
    ),
    Corpus(
        "leading dots",
        "Hidden files, and our own hidden folder's neighbours.",
        (".a", ".a/b", "..a", ".dataloop-not/a", ".dataloop", "x/.dataloop/y"),
        (".", "..", ".dataloop"),
        (".", ".a", ".dataloop"),
    ),
    Corpus(
        "one sign each",
        "Each sign of ASCII is a key.",
        ascii_but("./\\"),
        ("%", "+", "&", "#", "?", "=", "<", '"', "'", ";"),
        ("$", "%", "&", "+", "A", "~"),
    ),
    Corpus(
        "a sign in the middle",
        "The same signs between letters, where a query or an XML document takes them for its own.",
        tuple(f"m{sign}n" for sign in ascii_but("/\\")),
        ("m%", "m+", "m&", "m<", "m#", "m="),
        ("m$n", "m%n", "m&n", "m+n", "m~n"),
    ),
    Corpus(
        "percents",
        "What looks encoded is not, once or twice.",
        ("%", "%2", "%25", "%2525", "%41", "A", "%2F", "%2f", "%00", "%zz", "100%", "a%2Fb", "a%20b"),
        ("%", "%2", "%25", "%2F", "a%"),
        ("%", "%25", "%2F", "A"),
    ),
    Corpus(
        "pluses and spaces",
        "A plus is not a space, and two spaces are not one.",
        ("a+b", "a b", "a  b", "a%20b", "a%2Bb", " ", "  ", " a", "a ", "+", "++"),
        (" ", "+", "a+", "a ", "a  "),
        (" ", "+", "a b", "a+b"),
    ),
    Corpus(
        "signs as folders",
        "Other signs than the slash, by which some divide their keys into groups.",
        ("b%1", "b%2", "c%1", "b 1", "b 2", "b.1", "b.2", "b|1", "b:1", "b,1", "b-1"),
        ("b%", "b ", "b.", "b|", "b:"),
        ("b%1", "b.1", "b 2"),
    ),
    Corpus(
        "quotes and brackets",
        "What ends an attribute or an element.",
        ('"', "'", "<", ">", "<a/>", "&amp;", "&lt;", "]]>", "<!--", "${x}", "{{x}}", "`x`"),
        ("<", "&", "]]"),
        ("&", "<", ">"),
    ),
    Corpus(
        "control characters",
        "Unreadable characters, which XML can hold only encoded, if at all.",
        ("c\x01d", "c\x08d", "c\x0bd", "c\x1fd", "c\x7fd", "c\td", "cd"),
        ("c", "cd"),
        ("c", "cd"),
    ),
    Corpus(
        "line breaks",
        "A key of two lines.",
        ("l\nm", "l\rm", "l\r\nm", "lm"),
        ("l", "lm"),
        ("l", "lm"),
    ),
    Corpus(
        "two ways to write one letter",
        "Composed and decomposed letters look alike and are two keys.",
        ("\u00e9", "e\u0301", "\u00c5", "A\u030a", "\u212b", "\ufb01", "fi"),
        ("\u00e9", "e", "A"),
        ("e", "\u00c5", "fi"),
    ),
    Corpus(
        "beyond the basic plane",
        "By bytes these sort after U+FFEE, by UTF-16 before it.",
        ("\U0001f600", "\uffee", "\U0001f600/a", "\uffee/a", "\U0010fffd", "\ue000", "\ud7ff"),
        ("\U0001f600", "\uffee"),
        ("a", "\ud7ff", "\uffee"),
    ),
    Corpus(
        "scripts of the world",
        "Names as people write them, from left to right and from right to left.",
        (
            "\u6f22\u5b57/\u4eee\u540d.jpg",
            "\u05e9\u05dc\u05d5\u05dd",
            "\u0645\u0631\u062d\u0628\u0627/1",
            "\u041f\u0440\u0438\u0432\u0435\u0442",
            "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
            "stra\u00dfe",
            "\u0130i\u0131I",
        ),
        ("\u6f22", "\u6f22\u5b57/", "stra"),
        ("\u0400", "\u6f22\u5b57/", "stra\u00dfe"),
    ),
    Corpus(
        "upper and lower case",
        "Case counts, and upper case comes first.",
        ("photo", "Photo", "PHOTO", "pHoto/a", "PHOTO/a.JPG", "Photo/a.jpg"),
        ("P", "p", "PHOTO"),
        ("PHOTO", "Photo", "Z", "photo"),
    ),
    Corpus(
        "numbers",
        "10 comes before 9.",
        (*map(str, range(12)), "99", "100", "101", "007", "1e3", "-1", "1.0"),
        ("1", "10", "0"),
        ("1", "10", "9"),
    ),
    Corpus(
        "the longest keys",
        "1,024 bytes, of one byte each and of four, that differ in the last.",
        ("/".join(["k" * 204] * 5), "/".join(["k" * 204] * 4 + ["k" * 203 + "l"]), "\U0001f600" * 50 + "/" + "x" * 200),
        ("k" * 204, "\U0001f600" * 50),
        ("k" * 204, "\U0001f600"),
    ),
    Corpus(
        "a full folder among neighbours",
        "More keys than a page in one folder, with signs that sort around its end.",
        ("nn/", *(f"nn/{number:03}" for number in range(25)), "nn", "nn#", "nn+", "nn.", "nn0", "nn~", "o"),
        ("nn", "nn/", "nn/01", "nn+"),
        ("nn/", "nn/000", "nn/011", "nn/012", "nn/024", "nn/1", "nn~"),
    ),
    Corpus(
        "what looks like a path",
        "A dot and two dots are names in a bucket.",
        ("d/./e", "d/../e", "./d", "../d", ".", "..", "d/.", "d/..", "d/..e/.f"),
        ("d/.", "d/..", "."),
        (".", "d/.", "d/.."),
    ),
    Corpus(
        "backslashes", "A backslash divides nothing.", ("b\\c", "b\\\\c", "b\\", "b/c"), ("b\\", "b/"), ("b", "b/c")
    ),
    Corpus(
        "what programs treat apart",
        "Words that mean something in a URL, a shell or a listing's own document.",
        (
            "?list-type=2",
            "#",
            "a?b=c&d=e",
            "index.html",
            "null",
            "None",
            "true",
            "%s",
            "$HOME",
            "*",
            "a*",
            "~",
            "-",
            "--x",
            "Contents",
            "NextContinuationToken",
            "uploads",
            "?uploads",
            "versions",
        ),
        ("?", "a", "*", "$", "-"),
        ("#", "?uploads", "a*", "null"),
    ),
]
ALL_KEYS = {key for corpus in CORPORA for key in corpus.keys}
