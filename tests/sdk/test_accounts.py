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


def test_members_of_an_organisation_and_of_a_project(run_sdk):
    found = run_sdk(
        """
        import requests
        organization = dl.organizations.list()[0]
        headers = {"authorization": "Bearer " + dl.client_api.token}
        person = "mem@headwater.test"
        for owner in (person, "second@headwater.test"):
            requests.post(
                f"{url}/api/v1/orgs/{organization.id}/accounts",
                json={"email": owner, "password": "a good password"}, headers=headers,
            ).raise_for_status()
        elsewhere = requests.post(
            f"{url}/api/v1/orgs", json={"name": "elsewhere", "owner": "second@headwater.test"}, headers=headers).json()
        second = dl.organizations.get(organization_name="elsewhere")

        def roles(place):
            return {member.email: member.role for member in place.list_members()}

        added = second.add_member(email=[person], role=dl.MemberOrgRole.WORKER)
        one = roles(second)
        updated = second.update_member(email=person, role=dl.MemberOrgRole.ADMIN)
        two = [member.email for member in second.list_members(role=dl.MemberOrgRole.ADMIN)]
        removed = second.delete_member(user_id=person, sure=True, really=True)
        three = roles(second)
        last = error_of(second.delete_member, user_id="second@headwater.test", sure=True, really=True)
        unknown = error_of(second.add_member, email="nobody@headwater.test", role=dl.MemberOrgRole.MEMBER)

        project = dl.projects.create("with members")
        project.add_member(email=person, role=dl.MemberRole.ANNOTATOR)
        four = roles(project)
        project.update_member(email=person, role=dl.MemberRole.DEVELOPER)
        contributors = {user.email: user.role for user in dl.projects.get(project_id=project.id).contributors}
        project.remove_member(email=person)
        answer(
            added=added, one=one, updated=updated["role"], two=two, removed=removed, three=three, last=last,
            unknown=unknown, four=four, contributors=contributors, five=roles(project),
            groups=dl.organizations.list_groups(organization=second),
            plan=second.update(plan="freemium") and dl.organizations.get(organization_id=second.id).plan,
            names=[one.name for one in dl.organizations.list()],
        )
        """
    )
    person, second = "mem@headwater.test", "second@headwater.test"
    assert found["added"] is True
    assert found["one"] == {second: "owner", person: "worker"}
    assert (found["updated"], found["two"]) == ("admin", [person])
    assert found["removed"] is True
    assert found["three"] == {second: "owner"}
    assert found["unknown"][0] == "NotFound"
    assert "needs an owner" in found["last"][1]
    assert "headwater user add nobody@headwater.test" in found["unknown"][1]
    assert found["plan"] == "premium"
    assert found["four"][person] == "annotator"
    assert found["contributors"][person] == "engineer"
    assert person not in found["five"]
    assert found["groups"] == []
    assert "elsewhere" in found["names"]


def test_an_api_key_logs_in_until_it_is_revoked(run_sdk):
    found = run_sdk(
        """
        import requests
        me = dl.info()["user_email"]
        key = dl.client_api.generate_api_key(description="from the SDK")
        headers = {"authorization": "Bearer " + dl.client_api.token}
        keys = requests.get(f"{url}/api/v1/apiKeys", headers=headers).json()
        mine = [one["id"] for one in keys if one["name"] == "from the SDK"]
        dl.logout()
        dl.login_api_key(key)
        as_key = [dl.info()["user_email"], len(dl.projects.list()) >= 0]
        more = error_of(dl.client_api.generate_api_key)
        requests.delete(f"{url}/api/v1/apiKeys/{mine[0]}", headers=headers).raise_for_status()
        revoked, again = error_of(dl.projects.list), error_of(dl.login_api_key, key)
        answer(me=me, as_key=as_key, more=more, revoked=revoked, again=again)
        """
    )
    assert found["as_key"] == [found["me"], True]
    assert "API key" in found["more"][1]
    assert found["revoked"][0] == "Unauthorized"
    assert found["again"][0] == "ValueError"


def test_bots_of_a_project(run_sdk):
    found = run_sdk(
        """
        import requests
        project = dl.projects.create("with a bot")
        headers = {"authorization": "Bearer " + dl.client_api.token}
        before = project.bots.list()
        body = {"name": "loader", "returnCredentials": True}
        made = requests.post(f"{url}/api/v1/projects/{project.id}/bots", json=body, headers=headers).json()
        bots = [[bot.name, bot.email, bot.type, bot.password] for bot in project.bots.list()]
        got = project.bots.get(bot_email=made["email"]).id
        dl.logout()
        dl.login_api_key(made["password"])
        dataset = dl.projects.get(project_id=project.id).datasets.create("by a bot")
        dl.logout()
        dl.login_m2m(email=email, password=password)
        deleted = project.bots.delete(bot_id=made["id"])
        answer(before=len(before), bots=bots, got=got, creator=dataset.creator, deleted=deleted,
               made=made["email"], after=len(project.bots.list()))
        """
    )
    assert found["bots"] == [["loader", found["made"], "bot", None]]
    assert (found["before"], found["got"], found["creator"]) == (0, found["made"], found["made"])
    assert (found["deleted"], found["after"]) == (True, 0)


def test_a_developer_makes_a_driver_with_an_integration_it_cannot_read(run_sdk, bucket):
    bucket.put("a.txt", b"a")
    found = run_sdk(
        """
        import requests
        project = dl.projects.create("of a developer")
        integration = project.integrations.create(
            integrations_type=dl.IntegrationType.S3, name="shared keys", options={"key": key, "secret": secret})
        headers = {"authorization": "Bearer " + dl.client_api.token}
        person = {"email": "dev@headwater.test", "password": "a good password"}
        requests.post(
            f"{url}/api/v1/orgs/{project.org['id']}/accounts", json=person, headers=headers).raise_for_status()
        project.add_member(email=person["email"], role=dl.MemberRole.DEVELOPER)
        dl.logout()
        dl.login_m2m(email=person["email"], password=person["password"])
        project = dl.projects.get(project_id=project.id)
        usable = [one for one in project.integrations.list(only_available=True) if one["name"] == "shared keys"]
        driver = project.drivers.create(
            name="theirs", driver_type=dl.ExternalStorage.S3, integration_id=usable[0]["id"], bucket_name=bucket,
            integration_type=dl.IntegrationType.S3, endpoint=endpoint)
        dataset = synced(project.datasets.create("d", driver=driver))
        answer(usable=[sorted(one) for one in usable], files=filenames(dataset.items.list()),
               all=error_of(project.integrations.list))
        """,
        **bucket.access,
    )
    assert found["usable"] == [["id", "name", "type"]]
    assert found["files"] == ["/a.txt"]
    assert found["all"][0] == "Forbidden"
