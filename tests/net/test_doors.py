"""Every attack at every door that takes a URL; the canaries stay silent."""

from headwater.errors import BadRequest
from headwater.net.addresses import read_inner_host
from headwater.net.fetch import Fetcher, FetchFailed
from tests.net.attacks import Attack, all_attacks
from tests.net.origin import Origin, ScriptedDns, Watch

ATTACKS = all_attacks()


def aimed(attack: Attack, origin: Origin, watch: Watch) -> str:
    """The attack made ready: its redirects are served. Returns its URL."""

    def fill(text: str) -> str:
        return text.replace("{port}", str(watch.port)).replace("{origin}", str(origin.port))

    origin.answers.clear()
    hop = fill(attack.url)
    for location in attack.redirects:
        path = "/" + hop.split("/", 3)[3] if hop.count("/") >= 3 else "/"
        origin.redirect(path, fill(location))
        hop = fill(location)
    return fill(attack.url)


def test_the_corpus_is_large():
    assert len(ATTACKS) >= 600
    assert sum(not attack.redirects for attack in ATTACKS) >= 200


async def test_fetching(origin: Origin, watch: Watch):
    wrong = []
    for attack in ATTACKS:
        dns = ScriptedDns({"images.example.com": [["127.0.0.1"]]} | {k: [*v] for k, v in attack.dns.items()})
        fetcher = Fetcher(inner_hosts=[read_inner_host(f"127.0.0.1:{origin.port}")], resolver=dns)
        said = None
        try:
            async with fetcher.open(aimed(attack, origin, watch), within_s=10) as answer:
                said = await answer.read()
        except FetchFailed as failed:
            if failed.reason != "refused":
                said = failed
        except BadRequest as error:
            said = error
        finally:
            await fetcher.close()
        if said is not None or watch.heard or watch.strangers(origin.port):
            wrong.append(
                (attack.name, attack.url, attack.redirects, said, [*watch.heard], watch.strangers(origin.port))
            )
            watch.heard.clear()
            watch.connects.clear()
    assert wrong == []
