"""What a cache costs: as much as a written one takes, whatever its arrays; and what would fit instead."""

import re
from pathlib import Path

import numpy as np
import pytest
from cache_fakes import manifest_of, rows_of
from fake_teacher import bev_spec, offsets_spec, query_spec, weights_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from train_fakes import grid_of

from cache.layout import CacheLayout
from cache.writing import SceneSlot, open_for_writing
from pipeline.teacher_stage.cost import CacheOrder, cost_of, scenes_that_fit
from pipeline.teacher_stage.plan import (
    Plan,
    free_bytes_at,
    make_plan,
    print_plan,
    print_price,
    require_space,
    size_text,
)
from pipeline.teacher_stage.ways_to_fit import ways_to_fit
from schemas.errors import CacheError
from schemas.features import TIERS, FeatureSpec, Tier

SPECS = (bev_spec(200, 200, 256), offsets_spec(200, 200), weights_spec(200, 200), query_spec(900))


def order_of(tier: Tier = "int8", specs: tuple[FeatureSpec, ...] = SPECS, scenes: int = 700) -> CacheOrder:
    return CacheOrder(specs, tier, grid_of(200, 200), (40,) * scenes, step_axis=41)


def plan_with(free_bytes: int, order: CacheOrder | None = None, exists: bool = False) -> Plan:
    return Plan(order or order_of(), Path("caches/base"), exists, (), free_bytes)


def refusal(plan: Plan) -> str:
    with pytest.raises(CacheError) as refused:
        require_space(plan)
    return str(refused.value)


def write_cache(path: Path, specs: tuple[FeatureSpec, ...], tier: Tier, lengths: list[int]) -> None:
    slots = [SceneSlot(f"scene-{number:04d}", f"{number:032x}", length) for number, length in enumerate(lengths)]
    writer = open_for_writing(path, manifest_of(specs, tier), slots)
    draw = np.random.default_rng(0)
    for slot in slots:
        with writer.scene(slot.name) as scene:
            for _ in range(slot.length):
                scene.append({spec.name: draw.random(spec.shape, dtype=np.float32) for spec in specs})
            scene.commit(rows_of(slot))


def shard_bytes(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.glob("*/c.*") if path.parent.name != "valid")


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 6),
    channels=st.integers(1, 5),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    tier=st.sampled_from(["int8", "float16"]),
)
def test_shards_are_computed_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, rows: int, channels: int, lengths: list[int], tier: Tier
) -> None:
    specs = (bev_spec(rows, rows + 1, channels), offsets_spec(rows, rows + 1), query_spec(rows))
    cache = tmp_path_factory.mktemp("cost") / "cache"
    write_cache(cache, specs, tier, lengths)
    plan = make_plan(manifest_of(specs, tier), lengths, cache)
    cost = cost_of(plan.order)
    assert cost.values + cost.checks == shard_bytes(cache)
    assert cost.files == len([path for path in cache.rglob("*") if path.is_file()])


@pytest.mark.parametrize("tier", ["int8", "float16"])
def test_the_total_is_what_the_disk_says(tmp_path: Path, tier: Tier) -> None:
    specs, lengths = (bev_spec(40, 40, 64), offsets_spec(40, 40), weights_spec(40, 40), query_spec(150)), [4, 7, 5, 4]
    write_cache(tmp_path / "cache", specs, tier, lengths)
    on_disk = sum(path.stat().st_blocks * 512 for path in (tmp_path / "cache").rglob("*") if path.is_file())
    planned = make_plan(manifest_of(specs, tier), lengths, tmp_path / "cache").bytes_needed
    assert planned == pytest.approx(on_disk, rel=0.02)


def test_an_archive_is_never_planned_too_small_for_what_does_not_compress(tmp_path: Path) -> None:
    specs = (query_spec(2000),)
    write_cache(tmp_path / "cache", specs, "archive", [5])
    plan = make_plan(manifest_of(specs, "archive"), [5], tmp_path / "cache")
    assert plan.bytes_in("archive")[0] > 0.99 * shard_bytes(tmp_path / "cache") * 0.9
    assert plan.bytes_in("archive")[0] == plan.bytes_in("int8")[0], "floats are not expected to shrink"


def test_tiers_are_compared() -> None:
    plan = plan_with(10**15)
    int8, float16, archive = (plan.bytes_in(tier) for tier in TIERS)
    assert int8[0] == int8[1] < float16[0]
    assert archive[0] < archive[1] < int8[0]
    measured = Plan(plan.order, plan.path, plan.exists, (), plan.free_bytes, archive_share=0.5)
    assert measured.bytes_in("archive")[0] == measured.bytes_in("archive")[1] < archive[0]


@settings(max_examples=40)
@given(share=st.floats(0.001, 0.999), tier=st.sampled_from(TIERS))
def test_every_option_that_is_named_fits(share: float, tier: Tier) -> None:
    order = order_of(tier, scenes=20)
    free = int(cost_of(order).total * share)
    for way in ways_to_fit(order, order.scene_lengths, free):
        assert way.bytes <= free
    count = scenes_that_fit(order, free)
    assert cost_of(order.with_scenes(order.scene_lengths[:count])).total <= free or count == 0
    assert cost_of(order.with_scenes(order.scene_lengths[: count + 1])).total > free


def options(order: CacheOrder, free_gb: float) -> list[str]:
    return [way.options for way in ways_to_fit(order, order.scene_lengths, int(free_gb * 1e9))]


def test_the_mildest_option_of_each_kind_is_named() -> None:
    order = order_of("float16")  # most of it is BEV: without the rest it would not fit either
    assert options(order, 400) == [
        "--tier int8",
        "--bev-grid 100",
        "--scenes with the first 482 of the 700",
    ]
    assert options(order, 280)[0] == "--tier archive"
    assert "--arrays bev,weights,queries" in options(order, cost_of(order).total / 1e9 - 1)


def test_two_options_at_once_where_one_is_not_enough() -> None:
    found = options(order_of("float16"), 25)
    assert "--tier int8 --bev-grid 50" in found
    assert all(" --" in option or option.startswith("--scenes") for option in found)


def test_a_cache_that_fits_is_not_refused() -> None:
    require_space(plan_with(10**15))


def test_the_refusal_names_what_is_needed_and_what_would_fit() -> None:
    told = refusal(plan_with(250 * 10**9))
    assert re.match(
        r"the cache caches/base needs 29\d GB for 28000 frames in 700 scenes, and its disk has 250 GB", told
    )
    assert re.search(r"\n  --bev-grid 100: 7\d(\.\d)? GB\n", told)
    assert "--tier" not in told, "the archive tier would not fit"
    assert re.search(r"\n  --scenes with the first 5\d\d of the 700: 2(49|50) GB\n", told)
    assert re.search(r"choose a disk with 29\d GB free with CACHE=\.\.\.$", told)


def test_a_cache_that_is_there_keeps_its_form() -> None:
    told = refusal(plan_with(250 * 10**9, exists=True))
    assert "--bev-grid 100 CACHE=caches/base-2" in told
    assert "of the 700 CACHE" not in told, "fewer scenes still go into the same cache"


def test_a_disk_that_holds_nothing() -> None:
    assert "No option makes it fit there: choose a disk with" in refusal(plan_with(1000))


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes_at(tmp_path / "not" / "yet" / "there") > 0
    plan = make_plan(manifest_of(), [3], tmp_path / "not" / "there")
    assert not plan.exists
    assert list(tmp_path.iterdir()) == []


def test_a_cache_is_seen(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", (query_spec(),), "int8", [2])
    assert CacheLayout(tmp_path / "cache").group_document.exists()
    assert make_plan(manifest_of((query_spec(),)), [], tmp_path / "cache", cached_lengths=[2]).exists


def test_nothing_left_to_cache_costs_next_to_nothing(tmp_path: Path) -> None:
    plan = make_plan(manifest_of(), [], tmp_path)
    assert plan.bytes_needed < 100_000
    require_space(plan)


def test_the_price_in_one_line_and_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_price(plan_with(10**12))
    assert re.search(r"28000 frames of 10\.\d MB: 29\d GB of 1,?000 GB free", capsys.readouterr().out)
    print_plan(plan_with(10**11))
    printed = capsys.readouterr().out
    assert "10,240,004" in printed, "the payload of a BEV map, and its checksum"
    assert "int8 (chosen)" in printed
    for known in ("computed", "estimated", "measured", "counted", "assumed"):
        assert known in printed


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (521_000_000_000, "521 GB"),
        (1_234_000_000_000, "1,234 GB"),
        (462_000_000, "0.462 GB"),
        (288_608, "0.289 MB"),
        (1028, "1.03 kB"),
    ],
)
def test_sizes_for_people(count: int, told: str) -> None:
    assert size_text(count) == told
