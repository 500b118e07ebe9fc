"""The promise: an unchanged script sees a bucket's photos, their sizes and their thumbnails."""

import base64
import io

from PIL import Image

from tests.photos import photos


def test_an_unchanged_script_sees_120_photos_with_their_sizes_and_a_thumbnail(run_sdk, bucket):
    taken = list(photos())
    lying = next(photo for photo in taken if photo.upright_px != (photo.width_px, photo.height_px))
    for photo in taken:
        bucket.put(photo.key, photo.content)
    found = run_sdk(
        """
        import base64, requests
        project = dl.projects.create("photos")
        dataset = project.datasets.create("photos", driver=s3_driver(project, "photos"))
        until(lambda: dataset.items.list().items_count == 120, "all items")

        def seen():
            found = list(dataset.items.list().all())
            return all("width" in item.metadata["system"] for item in found) and found

        items = until(seen, "all items preprocessed", within_s=120)
        lying = next(item for item in items if item.filename == "/" + lying)
        fetched = requests.get(lying.thumbnail, headers={"authorization": "Bearer " + dl.client_api.token}, timeout=20)
        fetched.raise_for_status()
        answer(
            sizes={item.filename: [item.width, item.height] for item in items},
            thumbnail=base64.b64encode(fetched.content).decode(), kind=fetched.headers["content-type"],
        )
        """,
        **bucket.access,
        lying=lying.key,
    )
    wanted = {f"/{photo.key}": [photo.width_px, photo.height_px] for photo in taken}
    assert found["sizes"] == wanted
    with Image.open(io.BytesIO(base64.b64decode(found["thumbnail"]))) as thumbnail:
        assert found["kind"] == f"image/{thumbnail.format.lower()}"
        width_px, height_px = lying.upright_px
        assert abs(thumbnail.width / thumbnail.height - width_px / height_px) < 0.05
