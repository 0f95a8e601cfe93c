"""How models of the shapes world are evaluated."""

from videogen_jax.data.world import Evaluation, FeatureDistance
from videogen_jax.shapes.captions import sample_captions
from videogen_jax.shapes.features import classifier_extractor
from videogen_jax.shapes.flow import optical_flow
from videogen_jax.shapes.reader import IMAGE_ATTRIBUTES, LEAST_FRAMES, VALUES, parse_values, read_clip, read_image
from videogen_jax.shapes.world import SPLITS, render_clip
from videogen_jax.weights.hub import EMBEDDED_CLASSIFIER

EVALUATION = Evaluation(
    splits=SPLITS,
    attributes=VALUES,
    image_attributes=IMAGE_ATTRIBUTES,
    subject="shape",
    least_frames=LEAST_FRAMES,
    captions=sample_captions,
    render=render_clip,
    parse=parse_values,
    read_clip=read_clip,
    read_image=read_image,
    flow=optical_flow,
    distances=(
        FeatureDistance(
            name="shapes_frechet_distance",
            title="shapes Fréchet distance (not FVD)",
            network="shapes_classifier",
            weights=f"{EMBEDDED_CLASSIFIER} or a folder with another classifier that configs/shapes/classifier.py "
            "trained",
            packaged=EMBEDDED_CLASSIFIER,
            load=classifier_extractor,
        ),
    ),
)
