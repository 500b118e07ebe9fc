"""Ways to make a server speak to its own network: URLs, answers of DNS, and redirects that lead there.

`{port}` is that of the canaries, which listen on every address of this machine. Every door that takes a URL is tried
with all of them (`test_doors.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.net.origin import own_addresses

LOOPBACK = ["127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.254", "0.0.0.0", "::1", "::"]
INNER_V4 = [
    *("0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "169.254.0.1", "169.254.169.254"),
    *("169.254.170.2", "172.16.0.1", "172.31.255.254", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.168.0.1"),
    *("192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
    *("239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
]
INNER_V6 = [
    *("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0"),
    *("::127.0.0.1", "::ffff:0:127.0.0.1", "::ffff:0:7f00:1"),  # compatible, translated
    *("64:ff9b::7f00:1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "64:ff9b:1:ffff::1"),  # NAT64
    *("2002:7f00:1::", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:a00:1::1", "2002:c0a8:1::"),  # 6to4
    *("2001::7f00:1", "2001:0:7f00:1::", "2001:10::1", "2001:2::1", "2001:db8::1"),
    *("fe80::1", "febf::1", "fec0::1", "fc00::1", "fd12:3456:789a::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
    *("100::1", "3fff::1", "5f00::1", "::2", "1::1"),
]
# How hosts of this machine can be written. Some are names, and what they lead to is asked of the DNS.
NOTATIONS = [
    # One number, or fewer than four
    *("2130706433", "2130706433.", "017700000001", "0x7f000001", "0X7F000001", "0x7f000001.", "4278190080", "0"),
    *("127.1", "127.0.1", "127.0.0.1.", "127.1.", "0x7f.1", "0177.1", "127.0x1", "0.0", "00", "0x0", "0x", "0.0.0"),
    # Octal, hexadecimal, leading zeros
    *("0177.0.0.1", "0177.0.0.01", "0177.0000.0000.0001", "00000177.0.0.1", "0x7f.0.0.1", "0x7f.0x0.0x0.0x1"),
    *("0x7F.0.0x00.0x01", "127.0.0.01", "127.000.000.001", "0127.0.0.1", "127.0.0.0x1", "127.0.0.1e0", "127.00.0.1"),
    *("3232235521", "0xc0a80001", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.43518", "169.16689662"),
    # Beyond 255: some libraries wrap around
    *("383.0.0.1", "127.0.0.257", "4294967297", "0x17f000001", "127.0.65536"),
    # Letters that become digits and dots
    *(
        "１２７.0.0.1",
        "127。0。0。1",
        "127．0．0．1",
        "127｡0｡0｡1",
        "①②⑦.⓪.⓪.①",
        "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
        "¹²⁷.⁰.⁰.¹",
        "１２７。１",
        "①②⑦.①",
    ),
    *(
        "٠١٢٧.٠.٠.١",
        "१२७.०.०.१",
        "0ｘ7f.1",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "ｌｏｃａｌｈｏｓｔ",
        "LOCALHOST",
        "ʟocalhost",
        "localhoſt",
        "LocalHost.",
    ),
    *("local\u00adhost", "local\u200bhost", "local\u2060host", "\ufefflocalhost", "127.0.0\u200b.1", "127.0.0.1\u00ad"),
    # Names of this machine and of networks like ours
    *(
        "localhost",
        "localhost.",
        "localhost..",
        "a.localhost",
        "a.b.localhost.",
        "localhost.localdomain",
        "ip6-localhost",
    ),
    *("printer.local", "router.home.arpa", "metadata.google.internal", "instance-data.ec2.internal", "db.internal."),
    *("127.0.0.1.nip.io", "customer1.app.localhost.example", "localtest.me", "xn--localhost-9t9d", "intranet", "a_b"),
    # Escapes and what is left of them
    *(
        "%31%32%37.0.0.1",
        "127.0.0.%31",
        "127%2e0%2e0%2e1",
        "%6cocalhost",
        "localhost%2e",
        "127.0.0.1%00",
        "localhost%00.a.com",
    ),
    *("127.0.0.1%0d%0a", "127.0.0.1%20", "%5b::1%5d", "localhost%23.a.com", "localhost%2f.a.com", "localhost%5c.a.com"),
    # IPv6
    *(
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        "[::0001]",
        "[::]",
        "[0::0]",
        "[::1%lo]",
    ),
    *(
        "[::1%25lo]",
        "[fe80::1%25eth0]",
        "[::1%1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:0001]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
    ),
    *(
        "[::ffff:0177.0.0.1]",
        "[::ffff:127.1]",
        "[::1",
        "::1",
        "[::1].",
        "[[::1]]",
        "[127.0.0.1]",
        "[localhost]",
        "[v1.127.0.0.1]",
    ),
    *("[::１]", "[::1]@a.com", "[]"),
]
SYNTAX = [
    # Users, and who reads which of two hosts
    *("http://user:password@127.0.0.1:{port}/", "http://a.com@127.0.0.1:{port}/", "http://127.0.0.1:{port}@a.com/"),
    *("http://a.com:80@127.0.0.1:{port}/", "http://a@b@127.0.0.1:{port}/", "http://a.com%40127.0.0.1:{port}/"),
    *("http://@127.0.0.1:{port}/", "http://:@127.0.0.1:{port}/", "http://a.com;@127.0.0.1:{port}/"),
    *("http://a.com\\@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@a.com/", "http://a.com\\.127.0.0.1:{port}/"),
    *("http://127.0.0.1:{port}#@a.com/", "http://127.0.0.1:{port}?@a.com/", "http://a.com\\#@127.0.0.1:{port}/"),
    *("http://127.0.0.1:{port}\\.a.com/", "http://127.0.0.1:{port}%23.a.com/", "http://127.0.0.1%23:{port}/"),
    # Slashes
    *("http:/127.0.0.1:{port}/", "http:127.0.0.1:{port}/", "http:\\\\127.0.0.1:{port}/", "http:/\\127.0.0.1:{port}/"),
    *("http:/\\/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "http:////127.0.0.1:{port}/", "//127.0.0.1:{port}/"),
    *(
        "\\\\127.0.0.1:{port}\\share",
        "/\\127.0.0.1:{port}/",
        "///127.0.0.1:{port}",
        "127.0.0.1:{port}/",
        "127.0.0.1:{port}",
    ),
    *(
        "http://\\127.0.0.1:{port}/",
        "http://.127.0.0.1:{port}/",
        "http://./127.0.0.1:{port}/",
        "?http://127.0.0.1:{port}/",
    ),
    # What some drop and others keep
    *(
        " http://127.0.0.1:{port}/",
        "\thttp://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/ ",
        "http://127.0.0.1:{port}/\n",
    ),
    *(
        "ht\ntp://127.0.0.1:{port}/",
        "http:\n//127.0.0.1:{port}/",
        "http://127.0.\t0.1:{port}/",
        "http://127.0.0.1\r:{port}/",
    ),
    *("http://127.0.0.1\x00.a.com:{port}/", "http://a.com\x00@127.0.0.1:{port}/", "\x00http://127.0.0.1:{port}/"),
    *(
        "http://127.0.0.1 :{port}/",
        "http:// 127.0.0.1:{port}/",
        "http://a.com 127.0.0.1:{port}/",
        "<http://127.0.0.1:{port}/>",
    ),
    *(
        "http://a.com\r\nHost: 127.0.0.1:{port}/",
        "http://a.com/\r\n\r\nGET http://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/\u2028",
    ),
    *(
        "http://127.0.0.1：{port}/",
        "http：//127.0.0.1:{port}/",
        "http://127.0.0.1:{port}／",
        "ｈttp://127.0.0.1:{port}/",
    ),
    # Ports
    *(
        "http://127.0.0.1:+{port}/",
        "http://127.0.0.1:0{port}/",
        "http://127.0.0.1:{port}:80/",
        "http://127.0.0.1:80:{port}/",
    ),
    *(
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:65537/",
        "http://127.0.0.1:{port}.0/",
        "http://127.0.0.1:/",
        "http://127.0.0.1",
    ),
    *(
        "http://127.0.0.1:0/",
        "http://a.com:22/",
        "http://a.com:25/",
        "http://a.com:6667/",
        "http://a.com:99999999999999999999/",
    ),
    # No host at all
    *(
        "",
        "http://",
        "https://",
        "http:",
        "http://:{port}/",
        "http://?a",
        "http://#a",
        "http:///",
        "http://%/",
        "http://[/",
    ),
]
SCHEMES = [
    f"{scheme}127.0.0.1:{{port}}/"
    for scheme in (
        *("ftp://", "ftps://", "sftp://", "file://", "file:///", "gopher://", "dict://", "ldap://", "ldaps://", "tftp://"),
        *("telnet://", "ssh://", "smb://", "ws://", "wss://", "jar:http://", "netdoc://", "unix://", "http+unix://"),
        *("data:text/html,http://", "javascript:http://", "view-source:http://", "url:http://", "feed:http://"),
        *("s3://", "gs://", "rtsp://", "rtmp://", "imap://", "pop3://", "concat:http://", "hls+http://", "httpx://"),
    )
] + ["file:///etc/passwd", "/etc/passwd", "about:blank", "mailto:a@b", "expect://id", "php://x"]  # fmt: skip


@dataclass(frozen=True)
class Attack:
    name: str
    url: str
    dns: dict[str, list[list[str]]] = field(default_factory=dict)  # of each name the answers, one after the other
    redirects: tuple[str, ...] = ()  # where the first URL, a harmless one, leads to, one after the other


OUTER = "http://images.example.com:{origin}"  # where the tests' own server is; it may be reached
REBOUND = [  # a name whose second answer is another one
    ["127.0.0.1"], ["::1"], ["169.254.169.254"], ["10.0.0.1"], ["::ffff:127.0.0.1"], ["127.0.0.1", "93.184.215.14"],
]  # fmt: skip
MIXED = [
    ["93.184.215.14", "127.0.0.1"], ["127.0.0.1", "93.184.215.14"], ["2606:2800:220:1::1", "::1"],
    ["93.184.215.14", "::1"],
    ["93.184.215.14", "93.184.215.15", "10.0.0.1"], ["93.184.215.14", "64:ff9b::7f00:1"], ["93.184.215.14", "0.0.0.0"],
]  # fmt: skip


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def all_attacks() -> Sequence[Attack]:
    inner = [*LOOPBACK, *own_addresses(), *INNER_V4, *INNER_V6]
    literal = [Attack(f"address {one}", f"http://{_in_url(one)}:{{port}}/") for one in inner]
    secure = [Attack(f"https to {one}", f"https://{_in_url(one)}:{{port}}/") for one in LOOPBACK]
    notation = [Attack(f"host {one!r}", f"http://{one}:{{port}}/image.jpg") for one in NOTATIONS]
    syntax = [Attack(f"url {one!r}", one) for one in (*SYNTAX, *SCHEMES)]
    named = [Attack(f"name of {one}", "http://cdn.example.org:{port}/", {"cdn.example.org": [[one]]}) for one in inner]
    mixed = [Attack(f"name of {one}", "http://cdn.example.org:{port}/", {"cdn.example.org": [one]}) for one in MIXED]
    rebound = [
        Attack(
            f"a second answer {one}",
            "http://rebind.example.org:{origin}/again",
            {"rebind.example.org": [["127.0.0.1"], one]},
            ("http://rebind.example.org:{port}/",),
        )
        for one in REBOUND
    ]
    found = [*literal, *secure, *notation, *syntax, *named, *mixed, *rebound, *_redirected(inner)]
    return list({(attack.url, attack.redirects, str(attack.dns)): attack for attack in found}.values())


def _redirected(inner: Sequence[str]) -> Sequence[Attack]:
    start = OUTER + "/begin"
    to_addresses = [Attack(f"redirect to {one}", start, {}, (f"http://{_in_url(one)}:{{port}}/",)) for one in inner]
    # Relative, a redirect without scheme or host stays where it is: these are read by the path they become.
    odd = [Attack(f"redirect to host {one!r}", start, {}, (f"http://{one}:{{port}}/",)) for one in NOTATIONS]
    schemes = [Attack(f"redirect to {one!r}", start, {}, (one,)) for one in SCHEMES if "://" in one]
    chained = [
        Attack(
            f"redirect {hops} times, then to ourselves", start, {}, (*[OUTER + f"/{hop}" for hop in range(hops)], last)
        )
        for hops in (1, 2, 4, 5, 9)
        for last in ("http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://[::1]:{port}/")
    ]
    named = [
        Attack(
            "redirect to a name of ourselves",
            start,
            {"in.example.org": [["127.0.0.1"]]},
            ("http://in.example.org:{port}/",),
        ),
        Attack("redirect to the other scheme", start, {}, ("https://127.0.0.1:{port}/",)),
        Attack("redirect to the canary's port of the same host", start, {}, ("http://images.example.com:{port}/",)),
        Attack("redirect with a backslash", start, {}, ("/\\127.0.0.1:{port}/",)),
        Attack("redirect with two", start, {}, ("\\\\127.0.0.1:{port}/",)),
        Attack("redirect with a tab", start, {}, ("http://127.0.0.1\t:{port}/",)),
        Attack("redirect with a user", start, {}, ("http://images.example.com@127.0.0.1:{port}/",)),
        Attack("redirect in circles", start, {}, (OUTER + "/begin",)),
    ]
    return [*to_addresses, *odd, *schemes, *chained, *named]
