import pytest

from tests.tiny_model import CHANNELS, WIDTH
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.stages.decoder import DecoderStage
from videogen_jax.weights.parts import load_stage


@pytest.mark.parametrize(
    ("channels", "width", "message"),
    [
        (CHANNELS + 4, WIDTH, "cascade_8/config.json: the stage reads latents with 4 channels, but the model's have 8"),
        (CHANNELS, 8, "cascade_8/config.json: the stage reads context with 16 channels, but the model's have 8"),
    ],
)
def test_a_stage_of_another_model_is_refused(tiny_model, channels, width, message):
    with pytest.raises(ValueError, match=message):
        load_stage(tiny_model / "cascade_8", CascadeStage, channels, width)


def test_a_decoder_is_read_without_its_discriminator(tiny_model):
    stage, params = load_stage(tiny_model / "video_decoder", DecoderStage, CHANNELS, 1)
    assert stage.adversarial_weight == 0.0
    assert "conv_in" in params
