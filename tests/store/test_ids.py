"""Content ids and manifests."""

import pytest
from vinnow.store.errors import suggest
from vinnow.store.ids import IdGiver, content_of, ids_digest
from vinnow.store.keys import FeatureKey
from vinnow.store.manifest import Manifest

TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]


def give(giver, image, turns):
    return giver.give_to(content_of(image, turns))


def test_ids_depend_on_content_and_occurrence_alone():
    a, b = IdGiver(), IdGiver()
    first, second = give(a, "x.jpg", TURNS), give(a, "x.jpg", TURNS)
    assert first[0] != second[0]
    assert (first[1], second[1]) == (0, 1)
    assert give(b, "y.jpg", TURNS)[0] not in (first[0], second[0])
    assert give(b, "x.jpg", TURNS)[0] == first[0]
    assert give(b, None, TURNS)[0] != first[0]


def test_the_id_of_a_record_never_changes():
    """Golden value: a change here orphans every store on people's disks."""
    assert give(IdGiver(), "x.jpg", TURNS)[0] == 9867997542729453517
    assert give(IdGiver(), None, TURNS)[0] == 14467273179457208510
    assert give(IdGiver(), ["x.jpg", "y.jpg"], TURNS)[0] == 16025235250471111886


def test_the_order_of_pictures_counts():
    ids = {give(IdGiver(), i, TURNS)[0] for i in ("x", ["x", "y"], ["y", "x"], ["x", "x"], '["x","y"]')}
    assert len(ids) == 5


def test_pool_digest_ignores_order_and_sees_content():
    assert ids_digest([3, 1, 2]) == ids_digest([1, 2, 3]) != ids_digest([1, 2, 4])


def test_a_failed_stage_is_not_done_and_a_change_is_named(tmp_path):
    manifest = Manifest(tmp_path, "0.1.0")
    with pytest.raises(RuntimeError), manifest.stage("ingest", {"pool": "a"}):
        raise RuntimeError("killed")
    assert manifest.changed("ingest", {"pool": "a"}) is None
    with manifest.stage("ingest", {"pool": "a"}) as record:
        record.facts["rows"] = 5
    assert manifest.changed("ingest", {"pool": "a"}) == []
    assert manifest.changed("ingest", {"pool": "b"}) == ["pool: was 'a', is 'b'"]
    assert manifest.read("ingest").facts == {"rows": 5}


def test_a_typo_names_its_neighbour():
    assert "did you mean 'random'" in suggest("randon", ["less", "random"])
    assert FeatureKey(kind="k", dim=1, pool="", model="", checkpoint=0, recipe="").digest() != ""
