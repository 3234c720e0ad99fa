"""A wrong field of a run is named by its place in the run."""

import pytest
from finished import values_of
from vinnow.pipelines.runs.config import resolve
from vinnow.store.errors import InputError


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("warmup.0.train.seed=3", "warmup.0.train: ['seed'] are filled in by the run itself"),
        ("warmup.0.train.lrr=3", "unknown field 'warmup.0.train.lrr'; did you mean 'lr'"),
        ("warmup.0.nme=x", "unknown field 'warmup.0.nme'; did you mean 'name'"),
        ("warmup.0.train.validation={steps: 1}", "'warmup.0.train.validation.pool' is required: ValidationSpec cannot"),
        ("features.0.projection.dmi=3", "unknown field 'features.0.projection.dmi'; did you mean 'dim'"),
        ("selectors.0.config={targts: [a]}", "unknown field 'selectors.0.config.targts'"),
        ("finetune={variants: {a: {}, b: {}}, lrr: 1}", "unknown field 'finetune.lrr'; did you mean 'lr'"),
    ],
)
def test_a_wrong_field_is_named_by_its_place(tmp_path, entry, words):
    values = values_of(tmp_path)
    values |= {"captions": values["target"], "warmup": [{"name": "stage1", "train": {}}]}
    with pytest.raises(InputError) as caught:
        resolve(values, [entry])
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1 or "validation" in entry
