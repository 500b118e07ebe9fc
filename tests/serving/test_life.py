"""`headwater serve` from its first start to its end, on its own embedded database."""

import signal
import stat
import subprocess

import httpx
import psutil

from tests import samples
from tests.conftest import command, stop_server
from tests.serving.watching import living, processes_of, until, wait_for_end

STOPS_WITHIN_S = 10


def test_a_first_start_makes_secrets_that_only_their_owner_reads_and_a_stop_leaves_nothing(start, tmp_path):
    (tmp_path / "one.jpg").write_bytes(samples.jpeg())
    server = start(HEADWATER_ADMIN_PASSWORD="", HEADWATER_LOCAL_ROOTS=str(tmp_path))
    data_dir = server.running.data_dir
    log = data_dir.with_name(f"{data_dir.name}.log")
    password_file = data_dir / "admin-password"
    assert f"the password is in {password_file}" in log.read_text()
    for name in ("admin-password", "master-key", "signing-key"):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600, name
    server.log_in(password_file.read_text().strip())
    server.wait_for_thumbnails(server.folder_dataset(tmp_path))  # so that a decoder is running

    family = processes_of(data_dir)
    for part in ("headwater serve", "bin/postgres", "headwater.media.decoder"):
        assert any(part in line for line in living(family)), (part, living(family))
    assert stop_server(server.running, STOPS_WITHIN_S) == 0
    wait_for_end(family)
    assert not (data_dir / "server.json").exists()
    assert "Traceback" not in log.read_text()

    log.write_text("")
    again = start(data_dir, HEADWATER_ADMIN_PASSWORD="another one, which is not taken")
    again.log_in(password_file.read_text().strip())
    assert len(again.call("GET", "/projects")) == 1
    assert "password" not in log.read_text()


def test_a_server_that_was_killed_takes_its_processes_along_and_starts_and_stops_cleanly_again(start):
    server = start()
    data_dir = server.running.data_dir
    family = {process for process in processes_of(data_dir) if "bin/postgres" not in " ".join(process.cmdline())}
    family = {process for process in family if not process.name().startswith("postgres")}
    assert len(family) >= 3
    server.running.process.kill()
    server.running.process.wait(10)
    wait_for_end(family)

    again = start(data_dir)
    again.log_in()
    everything = processes_of(data_dir)
    assert stop_server(again.running, STOPS_WITHIN_S) == 0
    wait_for_end(everything)


def test_a_server_that_is_stopped_while_its_database_starts_stops_that_too(start, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("stopped-early")
    with (data_dir.parent / "stopped-early.log").open("wb") as log:
        process = subprocess.Popen(
            [command(), "serve", "--data-dir", data_dir, "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    until((data_dir / "postgres" / "postmaster.pid").exists, "the database starts")
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOPS_WITHIN_S) == 0
    wait_for_end(processes_of(data_dir))


def refusal(server, *arguments) -> str:
    """What a second server says before it ends, without a traceback."""
    asked = [server.headwater, "serve", *arguments]
    ended = subprocess.run(asked, env=server.environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_second_server_on_the_same_data_directory_is_refused(server):
    assert f"runs on {server.data_dir} already" in refusal(server, "--data-dir", server.data_dir, "--port", "0")
    assert httpx.get(f"{server.url}/readyz", trust_env=False).is_success


def test_a_port_that_is_taken_is_named(server, tmp_path):
    port = server.url.rpartition(":")[2]
    said = refusal(server, "--data-dir", tmp_path / "other", "--port", port)
    assert f"Cannot listen on 127.0.0.1:{port}" in said
    assert "--port" in said
    assert not (tmp_path / "other" / "postgres").exists()


def test_an_api_process_that_was_killed_comes_back_on_its_port(start, new_database):
    server = start(HEADWATER_DATABASE_URL=new_database())
    killed = server.child("api")
    killed.send_signal(signal.SIGKILL)

    def is_back() -> bool:
        try:
            return httpx.get(f"{server.running.url}/readyz", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    until(lambda: not psutil.pid_exists(killed.pid), "the process is gone")
    until(is_back, "the API answers again")
    server.log_in()
    assert stop_server(server.running, STOPS_WITHIN_S) == 0


def test_a_database_of_ours_that_was_killed_comes_back_and_work_goes_on(start, tmp_path):
    server = start(HEADWATER_LOCAL_ROOTS=str(tmp_path)).log_in()
    postmaster = psutil.Process(int((server.running.data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))
    postmaster.kill()

    def is_ready() -> bool:
        try:
            return server.client.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    until(lambda: not postmaster.is_running(), "the database is gone")
    until(is_ready, "the server is ready again")
    (tmp_path / "after.jpg").write_bytes(samples.jpeg((40, 30)))
    dataset_id = server.folder_dataset(tmp_path)
    server.wait_for_thumbnails(dataset_id)
    assert [item["metadata"]["system"]["width"] for item in server.items(dataset_id)] == [40]
    assert stop_server(server.running, STOPS_WITHIN_S) == 0
    wait_for_end(processes_of(server.running.data_dir))
