"""What a cache of nuScenes' training split takes on disk, for every shipped recipe. Computed from the feature specs.

python -m benchmarks.cache_size
"""

from detectors.teacher_features import feature_specs
from pipeline.recipes import RECIPES, TRAINING_FRAMES
from pipeline.teacher_stage.job import chosen_features
from schemas.features import frame_bytes


def main() -> None:
    """Print a Markdown table."""
    print("| recipe | teacher | student | MB a frame | GB, all features | GB, `--arrays bev` | GB, bev as float16 |")
    print("|---|---|---|---|---|---|---|")
    for name, make in RECIPES.items():
        recipe = make()
        if recipe.world is not None:
            continue
        features = chosen_features(feature_specs(recipe.teacher.detector), recipe.cache.features)
        bev = [spec for spec in features if spec.name == "bev"]
        everything = frame_bytes(features, "int8")
        gigabytes = [
            size * TRAINING_FRAMES / 1e9 for size in (everything, frame_bytes(bev, "int8"), frame_bytes(bev, "float16"))
        ]
        cells = " | ".join(f"{size:.0f}" for size in gigabytes)
        print(f"| `{name}` | {recipe.teacher.name} | {recipe.student.name} | {everything / 1e6:.1f} | {cells} |")


if __name__ == "__main__":
    main()
