"""Projects, integrations, drivers and datasets; sync."""


def test_projects_integrations_drivers_and_datasets_are_made_found_listed_and_deleted(
    run_sdk, bucket, tmp_path_factory
):
    for key in ("a.jpg", "b/c.txt", "b/d/e.bin"):
        bucket.put(key, key.encode())
    folder = tmp_path_factory.mktemp("folder")
    (folder / "inner").mkdir()
    (folder / "inner" / "kept.txt").write_bytes(b"kept")
    (folder / "left-out.txt").write_bytes(b"outside of the driver's directory")
    found = run_sdk(
        """
        name = "streets & squares 東京"
        project = dl.projects.create(name)
        same = [dl.projects.get(project_name=name).id, dl.projects.get(project_id=project.id).id]
        assert same == [project.id] * 2, same
        assert [listed.name for listed in dl.projects.list() if listed.id == project.id] == [name]
        errors = {"project": error_of(dl.projects.create, name), "no project": error_of(dl.projects.get, "none such")}

        integration = project.integrations.create(
            integrations_type=dl.IntegrationType.S3, name="camera bucket", options={"key": key, "secret": secret})
        errors["integration"] = error_of(
            project.integrations.create, integrations_type=dl.IntegrationType.S3, name="camera bucket",
            options={"key": key, "secret": "another"})
        same = project.integrations.create(
            integrations_type=dl.IntegrationType.S3, name="camera bucket", options={"key": key, "secret": secret})
        assert same.id == integration.id
        listed = [entry for entry in project.integrations.list() if entry["id"] == integration.id]
        told = json.dumps([entry for entry in listed]) + json.dumps(integration.to_json(), default=str)

        made = dict(driver_type=dl.ExternalStorage.S3, integration_id=integration.id, bucket_name=bucket,
            integration_type=dl.IntegrationType.S3, endpoint=endpoint)
        driver = project.drivers.create(name="cameras", allow_external_delete=False, **made)
        errors["driver"] = error_of(project.drivers.create, name="cameras", **made)
        errors["no bucket"] = error_of(project.drivers.create, name="other", **made | {"bucket_name": "none-such"})
        by_name = project.drivers.get(driver_name="cameras")
        assert by_name.id == driver.id == project.drivers.get(driver_id=driver.id).id
        assert by_name.bucket_name == bucket and by_name.end_point == endpoint and by_name.type == "s3"
        assert by_name.allow_external_delete is False
        local = folder_driver(project, "shelf", folder, directory="/inner")
        assert sorted(one.name for one in project.drivers.list()) == ["cameras", "shelf"]

        by_object = synced(project.datasets.create("by object", driver=driver))
        by_name = synced(project.datasets.create("by name", driver="shelf"))
        own = project.datasets.create("own storage")
        errors["dataset"] = error_of(project.datasets.create, "own storage")
        errors["no dataset"] = error_of(project.datasets.get, dataset_id="f" * 15 + "0" * 9)
        errors["no item"] = error_of(own.items.get, item_id="f" * 15 + "0" * 9)
        files = [filenames(dataset.items.list()) for dataset in (by_object, by_name, own)]
        assert sorted(dataset.name for dataset in project.datasets.list()) == ["by name", "by object", "own storage"]
        assert project.datasets.get(dataset_name="by object").id == by_object.id
        assert project.datasets.get(dataset_id=own.id).driver is None
        assert by_object.driver == driver.id

        by_name.delete(sure=True, really=True)
        errors["deleted"] = error_of(dl.datasets.get, dataset_id=by_name.id)
        assert sorted(dataset.name for dataset in project.datasets.list()) == ["by object", "own storage"]
        project.delete(sure=True, really=True)
        errors["deleted project"] = error_of(dl.projects.get, project_id=project.id)
        answer(errors=errors, files=files, told=told)
        """,
        folder=str(folder),
        **bucket.access,
    )
    errors = {what: error and error[0] for what, error in found["errors"].items()}
    assert errors == {
        "project": "Conflict",
        "no project": "NotFound",
        "integration": "Conflict",
        "driver": "Conflict",
        "no bucket": "FailedDependency",
        "dataset": "Conflict",
        "no dataset": "NotFound",
        "no item": "NotFound",
        "deleted": "NotFound",
        "deleted project": "NotFound",
    }, found["errors"]
    assert found["files"] == [["/a.jpg", "/b/c.txt", "/b/d/e.bin"], ["/kept.txt"], []]
    assert "admin-secret" not in found["told"]
    assert bucket.keys() == {"a.jpg", "b/c.txt", "b/d/e.bin"}
    assert (folder / "inner" / "kept.txt").read_bytes() == b"kept"


def test_an_integration_is_updated_and_syncs_take_its_new_options(run_sdk, bucket):
    bucket.put("a.txt", b"a")
    found = run_sdk(
        """
        project = dl.projects.create("updated integrations")
        integration = project.integrations.create(
            integrations_type=dl.IntegrationType.S3, name="to be updated", options={"key": key, "secret": secret})
        driver = project.drivers.create(
            name="d", driver_type=dl.ExternalStorage.S3, integration_id=integration.id, bucket_name=bucket,
            integration_type=dl.IntegrationType.S3, endpoint=endpoint)
        dataset = synced(project.datasets.create("d", driver=driver))

        renamed = project.integrations.update(integrations_id=integration.id, new_name="renamed")
        renamed.update(  # returns nothing
            new_name="renamed again", new_options={"key": key, "secret": "wrong"}, reload_services=True)
        again = project.integrations.get(integration.id)
        refused = until(lambda: error_of(dataset.sync), "the wrong secret is used")
        by_id = project.integrations.update(
            integrations_id=integration.id, new_options={"key": key, "secret": secret}, reload_services=False)
        works = until(lambda: error_of(dataset.sync) is None, "the right secret is used")
        errors = [
            error_of(renamed.update, new_options={"key": key}),
            error_of(project.integrations.update, integrations_id="f" * 15 + "0" * 9, new_name="x"),
            error_of(renamed.update, new_name=""),
        ]
        answer(
            ids={one.id for one in (renamed, again, by_id)} == {integration.id}, works=works, refused=refused,
            names=[renamed.name, again.name, by_id.name],
            files=filenames(dataset.items.list()), errors=errors,
            told=json.dumps([one.to_json() for one in (renamed, again, by_id)], default=str),
        )
        """,
        **bucket.access,
    )
    assert found["ids"] is True
    assert found["names"] == ["renamed", "renamed again", "renamed again"]
    assert found["works"] is True
    assert "renamed again" in found["refused"][1] or "secret" in found["refused"][1]
    assert found["files"] == ["/a.txt"]
    assert [error[0] for error in found["errors"]] == ["BadRequest", "NotFound", "BadRequest"], found["errors"]
    assert "admin-secret" not in found["told"] + str(found["errors"])


def test_sync_follows_the_bucket_and_a_deleted_item_stays_deleted(run_sdk, bucket):
    """boto3 is not part of the SDK's environment: the script changes the bucket through a second dataset."""
    for number in range(12):
        bucket.put(f"n/{number:02}.txt", b"old")
    found = run_sdk(
        """
        project = dl.projects.create("followed")
        kept = synced(project.datasets.create("kept", driver=s3_driver(project, "kept", allow_external_delete=False)))
        free = synced(project.datasets.create("free", driver=s3_driver(project, "free", allow_external_delete=True)))
        before = {item.filename: item.id for item in kept.items.list().all()}

        open("99.txt", "w").write("new")
        free.items.upload("99.txt", remote_path="/n")
        open("03.txt", "w").write("changed")
        free.items.upload("03.txt", remote_path="/n", overwrite=True)
        kept.items.get(filepath="/n/00.txt").delete()  # its object stays: the driver does not allow more
        free.items.get(filepath="/n/01.txt").delete()  # goes with its object

        def is_gone():  # the second driver's dataset sees it with its next sync
            free.sync()
            return kept.sync() and "missing" in kept.items.get(filepath="/n/01.txt").metadata["system"]

        until(is_gone, "the object of /n/01.txt is gone")
        after = {item.filename: item.id for item in kept.items.list().all()}
        changed = kept.items.get(filepath="/n/03.txt")
        command = kept.sync(wait=False)
        assert command.spec["datasetId"] == kept.id, command.spec
        answer(
            before=before, after=after, free=filenames(free.items.list()), size=changed.metadata["system"]["size"],
            missing=kept.items.get(filepath="/n/01.txt").download(save_locally=False),
            text=changed.download(save_locally=False).read().decode(),
        )
        """,
        **bucket.access,
    )
    names = {f"/n/{number:02}.txt" for number in range(12)}
    assert set(found["before"]) == names
    assert set(found["after"]) == names - {"/n/00.txt"} | {"/n/99.txt"}
    assert all(found["after"][name] == found["before"][name] for name in names - {"/n/00.txt"})
    assert set(found["free"]) == names - {"/n/01.txt"} | {"/n/99.txt"}
    assert (found["size"], found["text"]) == (7, "changed")
    assert found["missing"] is None
    assert bucket.keys() == {name[1:] for name in names - {"/n/01.txt"}} | {"n/99.txt"}
