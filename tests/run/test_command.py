"""From the command line to settings: strict, and with a sentence instead of a traceback."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import yaml

from jobs.command import CONF, known_keys, run_command
from jobs.generate import generate, main
from pipeline.errors import ConfigError, StorageError
from pipeline.run.checks import check_settings
from pipeline.settings import CropRank, Format, ModelSettings, Recipe, RunSettings, Settings, StoreSettings
from tests.fakes_run import drawn_image, fake_weights, write_folder

Compose = Callable[..., tuple[int, Settings | None, str]]


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compose:
    """Overrides -> exit code, the settings that the job got (None if it was not reached), stderr."""

    def run(*overrides: str) -> tuple[int, Settings | None, str]:
        monkeypatch.setattr("sys.argv", ["generate", *overrides])
        got: list[Settings] = []

        def action(settings: Settings) -> int:
            got.append(settings)
            return 0

        code = run_command("generate", Settings, action)
        return code, got[0] if got else None, capsys.readouterr().err

    return run


def test_without_overrides_the_recipe_is_sa1b_with_the_bundled_models_thresholds(compose: Compose):
    """YAML states differences: everything that it does not say must come from settings.py."""
    code, settings, _ = compose()
    assert code == 0
    assert settings == Settings(
        recipe=Recipe(
            pred_iou_thresh=0.85,
            stability_score_thresh=0.965,
            box_nms_thresh=0.6,
            crop_nms_thresh=0.6,
            crop_n_layers=2,
            crop_n_points_downscale_factor=2,
            min_mask_region_area=100,
            drop_if_largest_below=100,
            crop_rank=CropRank.LAYER,
            max_area_fraction=0.95,
        ),
        run=RunSettings(images_per_chunk=4),
    )


def test_presets_and_overrides_compose(compose: Compose):
    """The command of the documentation."""
    code, settings, _ = compose(
        "recipe=fast", "model=vit_b", "model.checkpoint=s3://w/b.pth", "run=cluster", "format=coco_rle",
        "run.max_workers=4", "recipe.pred_iou_thresh=1", "recipe.crop_rank=layer",
    )  # fmt: skip
    assert code == 0
    assert settings == Settings(
        format=Format.COCO_RLE,
        recipe=Recipe(points_per_side=16, pred_iou_thresh=1.0, crop_rank=CropRank.LAYER),
        model=ModelSettings(name="vit_b", checkpoint="s3://w/b.pth"),
        run=RunSettings(address="auto", max_workers=4),
    )
    assert settings is not None
    assert isinstance(settings.recipe.pred_iou_thresh, float)


@pytest.mark.parametrize("typed", ["[255,0,7]", '"255,0,7"', "[255, 0, 7]"])
def test_a_colour_may_be_written_as_a_list_or_as_a_quoted_text(compose: Compose, typed: str):
    """A bare comma separates the values of a sweep."""
    _, settings, errors = compose(f"recipe.nodata={typed}")
    assert settings is not None, errors
    assert settings.recipe.nodata == (255, 0, 7)


@pytest.mark.parametrize("text", ["a b", "a,b", "k=v", "ünï/日本.tar", "x[1]{2}(3)*?", "s3://b/k:1"])
def test_quoted_text_arrives_as_it_is(compose: Compose, text: str):
    """What make writes: 'source="..."'."""
    _, settings, errors = compose(f'source="{text}"')
    assert settings is not None, errors
    assert settings.source == text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("recipe.points_per_sid=16", "no setting recipe.points_per_sid; did you mean recipe.points_per_side?"),
        ("points_per_side=16", "no setting points_per_side; did you mean recipe.points_per_side?"),
        ("run.workers=2", "did you mean run.max_workers?"),
        ("+recipe.points_per_sid=16", "did you mean recipe.points_per_side?"),
        ("recepi=sam", "did you mean recipe?"),
        ("recipe=sa1", "recipe=sa1 must be one of fast, sa1b, sam; did you mean sa1b?"),
        ("+recipe=fst", "did you mean fast?"),
        ("model=VIT_B", "did you mean vit_b?"),
        ("model=", "model= must be one of edgetam, "),
        ("recipe=null", "recipe=null must be one of"),
        ("~recipe", "'~recipe' is no setting with a value"),
        ("recipe.points_per_side=many", "recipe.points_per_side=many must be a whole number"),
        ("recipe.points_per_side=16.5", "recipe.points_per_side=16.5 must be a whole number"),
        ("recipe.points_per_side=true", "recipe.points_per_side=true must be a whole number"),
        ("recipe.nodata=[0,0]", "recipe.nodata=[0, 0] must be 3 whole numbers, written [1,2,3]"),
        ("recipe.nodata=black", "recipe.nodata=black must be 3 whole numbers"),
        ("recipe.nodata=[0.5,0,0]", "must be 3 whole numbers"),
        ("image.depth=strech", "image.depth=strech must be one of scale, stretch, clip; did you mean stretch?"),
        ("recipe.pred_iou_thresh=high", "recipe.pred_iou_thresh=high must be a number"),
        ("run.grace_s=true", "run.grace_s=true must be a number"),
        ("run.images_per_chunk=null", "run.images_per_chunk=null must be a whole number"),
        ("run.max_workers=few", "run.max_workers=few must be a whole number"),
        ("format=coco", "format=coco must be one of parquet, coco_rle; did you mean coco_rle?"),
        ("out=2024", "out=2024 must be text; write out='\"2024\"'"),
        ("--multirun", "one command is one run"),
        ("-m", "one command is one run"),
        ("recipe.points_per_side=16,32", "a comma separates the values of a sweep"),
        ("source=a b,c", "cannot read the override"),
        ("source", "'source' is no setting with a value: write name=value"),
    ],
)
def test_wrong_words_stop_with_2_and_name_what_was_meant(compose: Compose, override: str, words: str):
    """A typo that is accepted silently costs a run of days."""
    code, settings, errors = compose(override)
    assert code == 2
    assert settings is None
    assert words in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1


def test_hydra_leaves_nothing_behind(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No outputs/ folder, no log file, no other working directory."""
    monkeypatch.chdir(tmp_path)
    assert compose()[0] == 0
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_every_command_begins_with_its_name():
    """Hydra takes the name of the file that calls it, which is the same for all of them."""
    for path in Path(CONF).glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["hydra"]["help"]["app_name"] == f"maskmill {path.stem}"


def test_every_setting_has_a_key():
    """Three samples of the tree; groups are keys as well."""
    assert {"recipe", "recipe.crop_rank", "run.grace_s", "store.endpoint_url"} <= set(known_keys(Settings))


@pytest.mark.parametrize(("error", "code"), [(ConfigError("c"), 2), (StorageError("s"), 3), (KeyboardInterrupt(), 130)])
def test_errors_become_exit_codes_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
):
    """A scheduler reads the code, a person the sentence."""
    monkeypatch.setattr("sys.argv", ["generate"])

    def action(_settings: Settings) -> int:
        raise error

    assert run_command("generate", Settings, action) == code
    said = capsys.readouterr().err
    assert said.startswith("Maskmill")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["out=o"], "source= is missing"),
        (["source=s"], "out= is missing"),
        (["source=nowhere", "out=o", "model=vit_b", "run=cluster"], "model=vit_b needs model.checkpoint where several"),
        (["source=nowhere", "out=o", "model.checkpoint=gone.pth"], "model.checkpoint=gone.pth cannot be read"),
        (["source=nowhere", "out=o", "model=vit_x"], "vit_x"),
        (["source=nowhere", "out=o", "model.name=vit_b"], "write model=vit_b instead of model.name=vit_b"),
        (["source=nowhere", "out=o", "recipe.points_per_side=0"], "recipe.points_per_side=0 must be 1 or more"),
    ],
)
def test_wrong_configuration_is_said_before_ray_starts(
    overrides: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Seconds, not the minutes that a cluster takes to come up; and nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["generate", *overrides])
    running = ray.is_initialized()
    assert main() == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert ray.is_initialized() == running
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_not_there_is_a_configuration_error(tmp_path: Path):
    """Named, with what it may be."""
    settings = Settings(source=str(tmp_path / "nowhere"), out=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="nowhere"):
        generate(settings, find_weights=fake_weights)


def test_no_cluster_at_the_address_is_a_configuration_error(tmp_path: Path):
    """Joining a cluster that is not there says what to do."""
    folder = write_folder(tmp_path / "images", {"a.png": drawn_image(1)})
    # A process of its own: in this one a driver would take the Ray session that other tests share.
    ended = subprocess.run(
        [
            *[sys.executable, "-m", "tests.fake_generate"],
            *[f'source="{folder}"', f'out="{tmp_path}/out"', "run.address=127.0.0.1:9"],
        ],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "no Ray cluster answers at run.address=127.0.0.1:9 " in ended.stderr
    assert "run=local" in ended.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": Recipe(crop_n_layers=6, crop_n_points_downscale_factor=2)}, "crop layer 6 would have no points"),
        ({"recipe": Recipe(box_nms_thresh=1.5)}, r"recipe.box_nms_thresh=1.5 must be in \[0, 1\]"),
        ({"recipe": Recipe(max_area_fraction=0.0)}, "recipe.max_area_fraction=0.0"),
        ({"recipe": Recipe(crop_overlap_ratio=1.0)}, r"recipe.crop_overlap_ratio=1.0 must be in \[0, 1\)"),
        ({"recipe": Recipe(pred_iou_thresh=88.0)}, "recipe.pred_iou_thresh=88.0 must be 1 or less"),
        ({"recipe": Recipe(stability_score_offset=0.0)}, "recipe.stability_score_offset=0.0 must be above 0"),
        ({"run": RunSettings(max_workers=0)}, "run.max_workers=0"),
        ({"run": RunSettings(images_per_chunk=0)}, "run.images_per_chunk=0"),
        ({"model": ModelSettings(device="tpu")}, "model.device=tpu"),
        ({"model": ModelSettings(device="cuda:1")}, "model.device=cuda:1 must be one of auto, cpu, cuda"),
        ({"model": ModelSettings(device="auto:3")}, "model.device=auto:3"),
        ({"recipe": Recipe(pred_iou_thresh=math.nan)}, "recipe.pred_iou_thresh=nan must be a finite number"),
        ({"recipe": Recipe(crop_edge_tolerance=math.inf)}, "recipe.crop_edge_tolerance=inf"),
        ({"run": RunSettings(grace_s=math.inf)}, "run.grace_s=inf"),
        ({"store": StoreSettings(retry_deadline_s=math.nan)}, "store.retry_deadline_s=nan"),
        ({"store": StoreSettings(anonymous=True, requester_pays=True)}, "store.anonymous=true and store.requester"),
    ],
)
def test_values_out_of_range_are_refused_by_name(changes: dict[str, object], words: str):
    """Said with the key that is typed."""
    with pytest.raises(ConfigError, match=words):
        check_settings(Settings(source="s", out="o", **changes))  # type: ignore[arg-type]
