"""Log in, and what a role may do."""

import subprocess


def token_of(server) -> str:
    command = [server.headwater, "token", "--data-dir", server.data_dir]
    return subprocess.run(command, env=server.environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_person_logs_in_with_a_password_or_a_token(run_sdk, server):
    found = run_sdk(
        """
        wrong = dl.login_m2m(email=email, password="wrong")
        refused = error_of(dl.projects.list)
        forged = error_of(dl.login_token, token[:-8] + "AAAAAAAA")
        right = dl.login_m2m(email=email, password=password)
        by_password = [dl.info()["user_email"], len(dl.projects.list()) >= 0]
        dl.logout()
        dl.login_token(token)
        by_token = [dl.info()["user_email"], len(dl.projects.list()) >= 0]
        dl.logout()
        dl.login_api_key(token)
        by_key = [dl.info()["user_email"], len(dl.projects.list()) >= 0]
        answer(wrong=wrong, refused=refused[0], forged=forged[0], right=right, all=[by_password, by_token, by_key])
        """,
        log_in=False,
        token=token_of(server),
    )
    assert found["wrong"] is False
    assert found["refused"] == "TokenExpired"  # the SDK threw its token away
    assert found["forged"] == "ValueError"
    assert found["right"] is True
    assert found["all"] == [[server.email, True]] * 3


def test_an_annotator_may_look_but_not_sync_upload_or_delete(run_sdk, bucket):
    bucket.put("a.txt", b"a")
    found = run_sdk(
        """
        import requests
        project = dl.projects.create("with an annotator")
        dataset = synced(project.datasets.create("d", driver=s3_driver(project, "d")))
        item_id = dataset.items.list().items[0].id
        headers = {"authorization": "Bearer " + dl.client_api.token}
        account = {"email": "ana@headwater.test", "password": "annotator's password"}
        base = f"{url}/api/v1"
        requests.post(f"{base}/orgs/{project.org['id']}/accounts", json=account, headers=headers).raise_for_status()

        dl.logout()
        assert dl.login_m2m(email=account["email"], password=account["password"])
        unseen = [error_of(dl.datasets.get, dataset_id=dataset.id), error_of(dl.items.get, item_id=item_id)]
        requests.post(
            f"{base}/projects/{project.id}/members/{account['email']}", json={"role": "annotator"}, headers=headers
        ).raise_for_status()

        dataset = dl.datasets.get(dataset_id=dataset.id)
        item = dataset.items.get(item_id=item_id)
        text = item.download(save_locally=False).read().decode()
        open("new.txt", "w").write("new")
        uploaded = dataset.items.upload("new.txt", raise_on_error=False)
        answer(
            unseen=unseen, text=text, sync=error_of(dataset.sync), delete=error_of(item.delete), uploaded=uploaded,
            drop=error_of(dataset.delete, sure=True, really=True), files=filenames(dataset.items.list()),
            integrations=error_of(project.integrations.list),
        )
        """,
        **bucket.access,
    )
    assert [error[0] for error in found["unseen"]] == ["NotFound", "NotFound"]
    assert found["text"] == "a"
    for forbidden in ("sync", "delete", "drop", "integrations"):
        assert found[forbidden][0] == "Forbidden", (forbidden, found[forbidden])
    assert found["uploaded"] is None
    assert found["files"] == ["/a.txt"]
    assert bucket.keys() == {"a.txt"}
