"""Decoding in children: limits hold, neighbours are safe, nothing is left behind. The kills are real."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import uvloop

from headwater.errors import Unavailable
from headwater.media.child import Child
from headwater.media.decoder import Orders
from headwater.media.limits import DecodePool
from headwater.media.records import Problem
from headwater.samples import write_samples
from tests import samples

MEMORY_BYTES = 512 * 1024**2
DECODERS = "tests.media.decoders"
TIMEOUT_S = 0.4

pytestmark = pytest.mark.timeout(30)


def open_pool(decode="obey", *, processes=1, timeout_s=30.0, **options):
    return DecodePool(
        processes=processes, timeout_s=timeout_s, memory_bytes=MEMORY_BYTES, decode=f"{DECODERS}:{decode}", **options
    )


def child_pids():
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture
def order(tmp_path):
    """A file that tells the child what to do."""

    def write(text):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))} {text[:20].replace('/', '_')}"
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="module")
async def pool():
    async with open_pool() as pool:
        yield pool


@pytest.fixture(scope="module")
async def hasty_pool():
    async with open_pool(timeout_s=TIMEOUT_S) as pool:
        yield pool


# The ordinary way


async def test_images_are_read_in_children(tmp_path):
    path = tmp_path / "photo\n[x] é"
    path.write_bytes(samples.oriented_jpeg(6))
    async with DecodePool(processes=2, timeout_s=30, memory_bytes=MEMORY_BYTES) as pool:
        results = await asyncio.gather(*(pool.prepare(path) for _ in range(20)))
    assert all(prepared.problem is None for prepared in results)
    assert {(prepared.facts.width_px, prepared.facts.height_px) for prepared in results} == {(200, 320)}
    assert results[0].facts.exif == {"Orientation": 6}
    assert (results[0].thumbnail.width_px, results[0].thumbnail.height_px) == (256, 160)
    assert results[0].thumbnail.content.startswith(b"\xff\xd8")


def test_uvloop_serves_as_well(order):
    async def prepare_two():
        async with open_pool() as pool:
            crashed = await pool.prepare(order("abort"))
            return crashed.problem.reason, (await pool.prepare(order("fine"))).problem.message

    assert uvloop.run(prepare_two()) == ("decoder-crashed", "fine")


async def test_children_start_with_the_first_file_and_serve_the_next(order):
    before = child_pids()
    async with open_pool("tell_pid") as pool:
        assert child_pids() == before
        first = await pool.prepare(order("fine"))
        assert await pool.prepare(order("fine")) == first
        assert str(child_pids() - before) == f"{{{first.problem.message}}}"


async def test_the_options_reach_the_children(order):
    async with open_pool("tell_options", read_gps=True, max_pixels=77) as pool:
        prepared = await pool.prepare(order("fine"))
    assert json.loads(prepared.problem.message) == {"read_gps": True, "max_pixels": 77}


async def test_of_the_samples_only_the_broken_ones_are_unreadable(tmp_path):
    """In children, with their limits: libvips must not spill to disc, where these allow next to nothing."""
    written = write_samples(tmp_path)
    async with DecodePool(processes=1, timeout_s=30, memory_bytes=MEMORY_BYTES) as pool:
        prepared = {path.name: await pool.prepare(path) for path in written}
    reasons = {name: found.problem.reason for name, found in prepared.items() if found.problem is not None}
    texts = {path.name for path in written if path.suffix in (".txt", ".json")}
    assert {name: why for name, why in reasons.items() if name not in texts} == {
        "cut-short.jpg": "truncated",
        "empty.jpg": "empty",
    }


async def test_a_child_leaves_no_compiled_module_cut_short(pool, order, tmp_path):
    """Its limit of file sizes would cut it, and every later start of anything would stumble over it."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "large.py").write_text("values = (" + ",".join(f"'{n:064}'" for n in range(20_000)) + ")")
    assert (await pool.prepare(order(f"import-large {modules}"))).problem.message == "import-large"
    assert [path.name for path in modules.iterdir()] == ["large.py"]


async def test_answers_may_be_larger_than_a_pipe(order):
    async with open_pool("answer_large") as pool:
        prepared = await pool.prepare(order("fine"))
    assert prepared.thumbnail.content == bytes(3 * 1024**2)


async def test_what_a_library_prints_is_no_answer(pool, order):
    assert (await pool.prepare(order("chatter"))).problem.message == "chatter"
    assert (await pool.prepare(order("fine"))).problem.message == "fine"


def test_the_parent_never_loads_a_decoder():
    code = (
        "import sys, headwater.media.limits, headwater.media.probe; print(sorted({'pyvips', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


@pytest.fixture
def loose_surroundings(monkeypatch):
    """A secret in the environment, cores allowed and a file that children inherit."""
    monkeypatch.setenv("HEADWATER_MASTER_KEY", "secret")
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    yield
    os.close(reader)
    os.close(writer)
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_children_know_no_secret_and_no_file_of_ours(order, loose_surroundings, run):
    async def ask():
        async with open_pool("tell_surroundings") as pool:
            return json.loads((await pool.prepare(order("fine"))).problem.message)

    surroundings = run(ask())
    assert "secret" not in json.dumps(surroundings["environment"])
    assert surroundings["limits"] == [0, 65536]
    assert surroundings["descriptors"] == [0, 1, 2, 3, 4]  # ours, the answers and the listing itself


# What a file may do to its child


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abort", "decoder-crashed"),
        ("segfault", "decoder-crashed"),
        ("exit", "decoder-crashed"),
        ("fail", "decoder-crashed"),
        ("killed", "out-of-memory"),
        ("allocate", "out-of-memory"),
        ("allocate-in-glib", "out-of-memory"),
    ],
)
async def test_a_file_that_ends_its_child_is_told_and_the_next_is_read(pool, order, text, reason):
    prepared = await pool.prepare(order(text))
    assert prepared.problem.reason == reason
    assert (await pool.prepare(order("fine"))).problem.message == "fine"


async def test_libvips_without_memory_is_told(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(samples.interlaced_png(20_000, 20_000))
    async with DecodePool(processes=1, timeout_s=30, memory_bytes=MEMORY_BYTES) as pool:
        prepared = await pool.prepare(path)
    assert prepared.problem.reason == "out-of-memory"


@pytest.mark.parametrize("text", ["loop", "loop-in-c"])
async def test_a_file_that_takes_too_long_is_given_up(hasty_pool, order, text):
    prepared = await hasty_pool.prepare(order(text))
    assert prepared.problem.reason == "timeout"
    assert "0.4 s" in prepared.problem.message
    assert (await hasty_pool.prepare(order("fine"))).problem.message == "fine"


async def test_bad_files_do_not_touch_the_ones_that_wait(order):
    texts = ["fine", "abort", "fine", "loop", "exit", "fine", "fine", "allocate", "fine", "fail", "fine", "loop"]
    async with open_pool(processes=2, timeout_s=TIMEOUT_S) as pool:
        results = await asyncio.gather(*(pool.prepare(order(text)) for text in texts))
    told = [prepared.problem.message for prepared in results]
    assert [text == "fine" for text in texts] == [message == "fine" for message in told]


async def test_a_child_that_ran_out_of_memory_is_replaced(order):
    async with open_pool() as pool:
        await pool.prepare(order("allocate"))
        assert not pool._children
        assert (await pool.prepare(order("fine"))).problem.message == "fine"


async def test_a_fault_of_ours_is_named_and_costs_no_process(order):
    async with open_pool() as pool:
        await pool.prepare(order("fine"))
        before = child_pids()
        assert (await pool.prepare(order("fail"))).problem.message == "The decoder failed with KeyError."
        assert child_pids() == before


async def test_a_child_ends_itself_when_its_parent_does_not(order):
    child = await Child.start(Orders(f"{DECODERS}:obey", 0.2, MEMORY_BYTES, read_gps=False, max_pixels=1))
    prepared = await child.ask(order("loop-in-c"), timeout_s=20)
    await child.end()
    assert prepared.problem == Problem("timeout", "Decoding took longer than allowed.")


async def test_a_file_behind_one_that_harmed_the_child_gets_a_second_try(pool, order):
    assert (await pool.prepare(order("harm"))).problem.message == "harm"
    assert (await pool.prepare(order("fine"))).problem.message == "fine"


async def test_an_answer_that_makes_no_sense_is_a_crash(order):
    async with open_pool("answer_nonsense") as pool:
        assert (await pool.prepare(order("fine"))).problem.reason == "decoder-crashed"


async def test_a_file_that_is_gone_is_told_and_not_raised(pool, tmp_path):
    assert (await pool.prepare(tmp_path / "gone")).problem.reason == "decoder-crashed"


# The end


async def test_a_caller_that_gives_up_frees_the_child(order, tmp_path):
    before = child_pids()
    async with open_pool() as pool:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        task = asyncio.create_task(pool.prepare(order(f"hold {fifo}")))
        child = await asyncio.to_thread(fifo.open)
        assert await asyncio.to_thread(child.readline)
        task.cancel()
        await asyncio.to_thread(child.read)  # to its end: the child is gone
        child.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert child_pids() == before
        assert (await pool.prepare(order("fine"))).problem.message == "fine"


async def test_closing_ends_what_is_in_work_and_leaves_no_process(order, tmp_path):
    before = child_pids()
    pool = open_pool(processes=2)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    await pool.prepare(order("fine"))
    working = [asyncio.create_task(pool.prepare(order(text))) for text in (f"hold {fifo}", "loop", "fine")]
    child = await asyncio.to_thread(fifo.open)
    await pool.close()
    assert child_pids() == before
    child.close()
    results = await asyncio.gather(*working, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    with pytest.raises(Unavailable, match="closed"):
        await pool.prepare(order("fine"))
    await pool.close()


async def test_a_child_that_cannot_start_is_our_fault_not_the_file_s(order):
    before = child_pids()
    async with open_pool("no_such_function") as pool:
        for _ in range(2):
            with pytest.raises(Unavailable, match="no_such_function"):
                await pool.prepare(order("fine"))
    assert child_pids() == before
    with pytest.raises(Unavailable, match="closed"):
        await pool.prepare(order("fine"))


PARENT = """
import asyncio, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
from pathlib import Path
from headwater.media.child import Child
from headwater.media.decoder import Orders
from headwater.media.limits import DecodePool
from headwater.media.records import Problem

async def main():
    pool = DecodePool(processes=2, timeout_s=60, memory_bytes=2**30, decode="tests.media.decoders:obey")
    await asyncio.gather(*(pool.prepare(Path(path)) for path in sys.argv[1:]))

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_die_with_their_parent(order, tmp_path, how):
    fifos = [tmp_path / "one", tmp_path / "two"]
    for fifo in fifos:
        os.mkfifo(fifo)
    arguments = [str(order(f"hold {fifo}")) for fifo in fifos]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL
    )
    children = [fifo.open() for fifo in fifos]
    assert all(int(child.readline()) for child in children)
    parent.send_signal(how)
    for child in children:
        child.read()  # returns when the child is gone
        child.close()
    parent.wait()
