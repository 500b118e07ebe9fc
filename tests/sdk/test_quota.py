"""What the SDK makes of a quota: uploads and syncs without room end with the sentence, and go on once there is some."""

import pytest

_LIMIT = """
import io

organization = next(one for one in dl.organizations.list() if one.name == "Headwater")
path = f"/orgs/{organization.id}/quota"

def limit(more):
    '''Leave room for so many more; None for any number.'''
    used = dl.client_api.gen_request(req_type="get", path=path)[1].json()["used"]
    success, response = dl.client_api.gen_request(
        req_type="put", path=path, json_req={"limit": None if more is None else used + more})
    assert success, response.text

def upload(dataset, name, content=b"x" * 3_000_000, **options):
    '''By default more than fits into the buffers on the way: the refusal comes while it is still being sent.'''
    body = io.BytesIO(content)
    body.name = name
    return dataset.items.upload(local_path=body, remote_path="/", raise_on_error=True, **options).filename
"""


@pytest.fixture
def unlimited_again(run_sdk):
    yield
    run_sdk(_LIMIT + "limit(None)\nanswer()")


@pytest.mark.usefixtures("unlimited_again")
def test_an_upload_without_room_is_refused_readably_and_is_taken_once_there_is_some(run_sdk):
    found = run_sdk(
        _LIMIT
        + """
own = dl.projects.create("quota uploads").datasets.create("own")
limit(1)
fits = upload(own, "fits.bin")
refused = error_of(upload, own, "refused.bin")
over = upload(own, "fits.bin", b"other", overwrite=True)
before = filenames(own.items.list())
limit(1)
late = upload(own, "refused.bin")
answer(fits=fits, refused=refused, over=over, before=before, late=late)
"""
    )
    assert (found["fits"], found["over"], found["late"]) == ("/fits.bin", "/fits.bin", "/refused.bin")
    assert found["before"] == ["/fits.bin"]
    assert "This needs 1 more data point; 0 of" in found["refused"][1], found["refused"]


@pytest.mark.usefixtures("unlimited_again")
def test_the_command_of_a_sync_without_room_fails_with_the_sentence_and_the_same_sync_ends_complete(
    run_sdk, tmp_path_factory
):
    found = run_sdk(
        _LIMIT
        + """
import pathlib

project = dl.projects.create("quota syncs")
cloud = synced(project.datasets.create("cloud", driver=folder_driver(project, "shelf", folder)))
for number in range(5):
    pathlib.Path(folder, f"{number}.txt").write_text("text")
limit(2)
errors = [error_of(cloud.sync), error_of(cloud.sync)]
partial = filenames(cloud.items.list())
limit(10)
cloud.sync()
answer(errors=errors, partial=partial, whole=filenames(cloud.items.list()))
""",
        folder=str(tmp_path_factory.mktemp("shelf")),
    )
    assert found["partial"] == ["/0.txt", "/1.txt"]
    assert found["whole"] == [f"/{number}.txt" for number in range(5)]
    for kind, told in found["errors"]:
        assert kind == "FailedDependency"  # the SDK's own word for every command that failed
        assert "more data points; 0 of" in told
        assert "headwater quota set Headwater NUMBER" in told
        assert told.count("It stopped after '/1.txt'.") == 1
