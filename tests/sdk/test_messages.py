"""What the SDK makes of notices: `dl.messages` lists them, of a project and an organisation, with their facts."""


def test_the_sdk_lists_what_its_user_is_told(run_sdk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("messages")
    (folder / "a.txt").write_text("text")
    found = run_sdk(
        """
from dtlpy.repositories.messages import Messages

organization = next(one for one in dl.organizations.list() if one.name == "Headwater")
project = dl.projects.create("messages")
other = dl.projects.create("no messages")
integration = organization.integrations.create(
    integrations_type="hostPath", name="messages", options={}, metadata={"path": folder})
driver = project.drivers.create(
    name="messages", driver_type="storage", integration_id=integration.id, integration_type="hostPath",
    bucket_name=None, allow_external_delete=False)
dataset = synced(project.datasets.create("told", driver=driver))

NAMES = (
    "title", "description", "read", "new", "dismissed", "resource_type", "resource_id", "resource_name",
    "notification_code", "resource_action")
messages = Messages(client_api=dl.client_api)
of_project = messages._list(context={"project": project.id})
answer(
    project=project.id,
    dataset=dataset.id,
    of_project=[  # the SDK's own to_json fails
        {name: getattr(one, name) for name in NAMES} | {"context": one.context.to_json()} for one in of_project],
    projects=[one.project.id for one in of_project],
    of_other=len(messages._list(context={"project": other.id})),
    of_organization=len(messages._list(context={"org": organization.id})),
    of_all=len(messages._list()),
)
""",
        folder=str(folder),
    )
    (message,) = found["of_project"]
    assert message["title"] == "Sync of told has ended"
    assert message["description"].startswith("1 new.")
    assert [message[name] for name in ("resource_type", "resource_id", "resource_name")] == [
        "datasets", found["dataset"], "told"
    ]  # fmt: skip
    assert (message["notification_code"], message["resource_action"]) == ("command.succeeded", "succeeded")
    assert (message["new"], message["read"], message["dismissed"]) == (1, 0, 0)
    assert message["context"]["project"] == found["project"]
    assert found["projects"] == [found["project"]]
    assert found["of_other"] == 0
    assert found["of_organization"] >= 1
    assert found["of_all"] >= found["of_organization"]
