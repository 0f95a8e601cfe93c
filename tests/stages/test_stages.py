import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.shapes import text
from videogen_jax.diffusion.guidance import PASSES, GuidanceScales
from videogen_jax.diffusion.samplers import sample_loop
from videogen_jax.runtime.arrays import resize, to_uint8, to_unit
from videogen_jax.stages.cascade import CascadeInputs
from videogen_jax.stages.decoder import hinge
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.settings import StageSettings
from videogen_jax.stages.stage import build_network
from videogen_jax.stages.temporal import blend, log_squared
from videogen_jax.stages.text import TextStage, uniformity
from videogen_jax.training.build import build_stage
from videogen_jax.training.optimizer import make_optimizer
from videogen_jax.training.state import init_state, train_step

UNET = {
    "block_out_channels": (8,),
    "layers_per_block": 1,
    "cross_attention": (False,),  # the middle has transformers
    "num_heads": 1,
    "cross_attention_dim": 6,
    "norm_num_groups": 4,
}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def cascade(**fields):
    settings = {"unet": UNET, "schedule": {"name": "cosine", "rescale_zero_terminal_snr": True}, "resolution": 4}
    return build_stage("cascade", {**settings, **fields})


def mixing(stage):
    """The stage with a short function of all its inputs in the place of the UNet, and parameters for it.

    For tests of what a network is given and of what becomes of its output; tests/models has those of the network.
    """

    class Mixing(type(stage)):
        def predict(self, params, x, t, context, conditions=(), **_):
            scalars = context.mean((1, 2)) + 1e-3 * sum(jax.tree.leaves(conditions), t)  # (B,)
            return jnp.tanh(x @ params["kernel"] + scalars[:, None, None, None, None])

    fields = {field.name: getattr(stage, field.name) for field in dataclasses.fields(stage)}
    return Mixing(**fields), {"kernel": 0.5 * normal(stage.network.in_channels, 4, seed=9)}


@pytest.mark.parametrize("reference_frames", ["all", "first", "clean", "none"])
def test_reference_and_mask_are_joined_to_the_frames_that_the_config_names(reference_frames):
    stage = cascade(lower_resolution=2, reference_frames=reference_frames)
    x, reference, lower = normal(2, 3, 4, 4, 4), normal(2, 1, 4, 4, 4, seed=1), normal(2, 3, 4, 4, 4, seed=2)
    joined = stage.unet_input(x, reference, jnp.array([1.0, 0.0]), lower)
    assert joined.shape == (2, 3, 4, 4, stage.network.in_channels) == (2, 3, 4, 4, 13)
    clean = reference_frames == "clean"  # the reference replaces the first frame, unless it is dropped
    np.testing.assert_array_equal(joined[0, 0, ..., :4], reference[0, 0] if clean else x[0, 0])
    np.testing.assert_array_equal(joined[0, 1:, ..., :4], x[0, 1:])
    np.testing.assert_array_equal(joined[1, ..., :4], x[1])
    np.testing.assert_array_equal(joined[..., 9:], lower)
    assert jnp.all(joined[1, ..., 4:9] == 0)  # dropped: zeros, and a mask of zeros
    count = {"all": 3, "none": 0}.get(reference_frames, 1)
    for i in range(3):
        np.testing.assert_array_equal(joined[0, i, ..., 4:8], reference[0, 0] if i < count else jnp.zeros((4, 4, 4)))
        assert jnp.all(joined[0, i, ..., 8] == (i < count))
    first_stage = cascade()
    assert first_stage.network.in_channels == 9
    assert first_stage.unet_input(x, reference, jnp.ones(2), None).shape[-1] == 9


def test_a_stage_without_text_or_reference_neither_learns_nor_samples_from_it():
    reference, context, null = normal(2, 1, 4, 4, 4, seed=1), normal(2, 3, 6, seed=3), normal(3, 6, seed=4)
    batch = {"latents": normal(2, 3, 4, 4, 4), "reference": reference, "context": context}
    keys = jax.random.split(jax.random.key(7), 2)

    def results(stage, *batches):
        """The loss and two sampling steps with each of the batches."""
        stage, params = mixing(stage)

        def both(batch):
            inputs = CascadeInputs(batch["context"], null, batch["reference"])
            loss, _ = stage.loss({stage.name: params}, {"null_context": null}, batch, keys[0])
            return loss, stage.sample_latents(params, keys, inputs, 3, StageSettings(2.0, 1.5, steps=2))

        compiled = jax.jit(both)
        return [jax.device_get(compiled(batch)) for batch in batches]

    never_dropped = {"text_dropout": 0.0, "reference_dropout": 0.0}
    for fields, name in (({"text": False}, "context"), ({"reference_frames": "none"}, "reference")):
        for stage, same in ((cascade(**fields, **never_dropped), True), (cascade(**never_dropped), False)):
            one, other = results(stage, batch, {**batch, name: batch[name] + 1.0})
            assert [np.array_equal(a, b) for a, b in zip(one, other, strict=True)] == [same, same], (fields, name)
        (_, config) = cascade(**fields).parts()["cascade_4"]
        assert {k: config[k] for k in fields} == fields  # a sampler has to know


def test_a_clean_reference_is_the_first_frame_and_teaches_nothing():
    stage, params = mixing(cascade(reference_frames="clean", reference_dropout=0.0))
    reference, context = normal(2, 1, 4, 4, 4, seed=1), normal(2, 3, 6)
    batch = {"latents": normal(2, 3, 4, 4, 4), "reference": reference, "context": context}
    keys = jax.random.split(jax.random.key(7), 2)
    inputs, settings = CascadeInputs(context, jnp.zeros((3, 6)), reference), StageSettings(1.0, 1.0, steps=2)
    drawn = jax.jit(lambda p: stage.sample_latents(p, keys, inputs, 3, settings))(params)
    np.testing.assert_array_equal(drawn[:, :1], reference)
    assert jnp.abs(drawn[:, 1:] - reference).max() > 0.1

    def change(stage, frame):
        """Of the loss, when one frame's truth is another."""
        frozen = {"null_context": jnp.zeros((3, 6))}
        loss = jax.jit(lambda latents: stage.loss(params, frozen, {**batch, "latents": latents}, keys[0])[0])
        other = np.array(batch["latents"])
        other[:, frame] += 1
        return abs(float(loss(other) - loss(batch["latents"])))

    params = {stage.name: params}
    kept, dropped = stage, dataclasses.replace(stage, reference_dropout=1.0)
    assert [change(s, frame) > 1e-4 for s in (kept, dropped) for frame in (0, 1)] == [False, True, True, True]


@pytest.mark.parametrize("reference_frames", ["all", "clean"])
def test_a_still_image_is_learned_without_its_reference(reference_frames):
    stage, params = mixing(cascade(reference_frames=reference_frames, reference_dropout=0.0))
    params, batch = {stage.name: params}, {"latents": normal(2, 1, 4, 4, 4), "context": normal(2, 3, 6)}

    @jax.jit
    def loss(reference):
        frozen = {"null_context": jnp.zeros((3, 6))}
        return stage.loss(params, frozen, {**batch, "reference": reference}, jax.random.key(0))[0]

    assert loss(normal(2, 1, 4, 4, 4, seed=1)) == loss(normal(2, 1, 4, 4, 4, seed=2)) > 0.1


def test_scalar_conditions_of_the_cascade():
    stage = cascade(lower_resolution=2, unet={**UNET, "added_conditions": ("fps",)})
    conditions = {k: v.tolist() for k, v in stage.scalar_conditions(2, jnp.array([30, 40]), 7.5).items()}
    assert conditions == {"fps": [75.0, 75.0], "noise_level": [30.0, 40.0]}
    with pytest.raises(ValueError, match="stage cascade_4 needs the condition fps"):
        stage.scalar_conditions(2, jnp.array([30, 40]), None)
    assert cascade().scalar_conditions(2, None, 7.5) == {}


def test_dropped_text_is_the_empty_prompts():
    stage = cascade(text_dropout=0.25)
    context, null = normal(2000, 3, 6), normal(3, 6, seed=1)
    dropped = (stage.drop_text(jax.random.key(0), context, null) == null).all((1, 2))
    kept = (stage.drop_text(jax.random.key(0), context, null) == context).all((1, 2))
    assert jnp.all(dropped ^ kept)
    assert abs(float(dropped.mean()) - 0.25) < 0.03


def random_params(stage, batch):
    leaves, tree = jax.tree.flatten(jax.eval_shape(stage.init, jax.random.key(0), batch))
    return tree.unflatten([0.2 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def test_a_batch_of_videos_is_what_each_is_alone_and_passes_without_weight_may_be_left_out():
    stage, params = mixing(cascade(lower_resolution=2))

    @functools.partial(jax.jit, static_argnames="passes")
    def sample(keys, context, reference, lower, scales=(3.0, 2.0), passes=PASSES):
        inputs = CascadeInputs(context, jnp.zeros((3, 6)), reference, lower)
        state, conditioning = stage.start(keys, inputs, 2, "dpmpp_2m", passes)

        def step(state, coeffs):
            return stage.step(params, state, conditioning, coeffs, GuidanceScales(*scales), "dpmpp_2m", passes)

        return sample_loop(step, state, stage.sampler("dpmpp_2m").coefficients(2)).x

    keys = jax.random.split(jax.random.key(7), 2)
    inputs = (keys, normal(2, 3, 6, seed=1), normal(2, 1, 4, 4, 4, seed=2), normal(2, 2, 2, 2, 4, seed=3))
    both = sample(*inputs)
    assert both.shape == (2, 2, 4, 4, 4)
    assert jnp.abs(both[0] - both[1]).max() > 0.1
    for i in range(2):
        alone = sample(*(x[i : i + 1] for x in inputs))
        np.testing.assert_allclose(alone[0], both[i], atol=1e-4)
    drawn = [both]
    for scales in ((3.0, 1.0), (2.0, 2.0), (1.0, 1.0)):
        passes = stage.passes(StageSettings(*scales))
        assert len(passes) < len(PASSES)
        drawn.append(sample(*inputs, scales, passes))
        np.testing.assert_allclose(drawn[-1], sample(*inputs, scales), atol=1e-4)
    for i, j in itertools.combinations(range(len(drawn)), 2):
        assert jnp.abs(drawn[i] - drawn[j]).max() > 5e-3
    with pytest.raises(ValueError, match=r"passes is \('full', 'uncond'\), but must be one of"):
        sample(*inputs, passes=("full", "uncond"))


def test_a_first_stage_draws_its_samples_without_the_lower_latents_that_clips_have_for_another():
    stage, params = mixing(cascade())
    batch = {"latents": normal(1, 2, 4, 4, 4), "reference": normal(1, 1, 4, 4, 4, seed=1), "context": normal(1, 3, 6)}
    frozen, rng = {"null_context": jnp.zeros((3, 6))}, jax.random.key(0)
    alone, with_lower = (
        jax.jit(stage.sample)({stage.name: params}, frozen, some, rng)
        for some in (batch, {**batch, "lower": normal(1, 2, 2, 2, 4)})
    )
    assert alone.keys() == with_lower.keys()
    for name in alone:
        np.testing.assert_array_equal(alone[name], with_lower[name])


def test_reference_without_guidance_is_that_of_scale_one():
    stage, params = mixing(build_stage("reference", {"unet": UNET}))
    context = normal(2, 3, 6, seed=1)

    keys, empty = jax.random.split(jax.random.key(7), 2), Prompts(jnp.zeros((1, 3, 6)))
    assert stage.passes(StageSettings(7.5)) == ("uncond", "full")

    @jax.jit
    def sample(scale):
        state, prompts = stage.start(keys, Prompts(context), empty, (4, 4), "dpmpp_2m", ("uncond", "full"))

        def step(state, coeffs):
            scales = GuidanceScales(scale)
            return stage.step(params, state, prompts, coeffs, scales, "dpmpp_2m", ("uncond", "full"))

        return sample_loop(step, state, stage.sampler("dpmpp_2m").coefficients(2)).x

    whole = jax.jit(stage.sample_latents, static_argnames=("latent_size", "settings"))
    plain = whole(params, keys, Prompts(context), empty, latent_size=(4, 4), settings=StageSettings(1.0, steps=2))
    np.testing.assert_allclose(plain, sample(1.0), atol=1e-4)
    assert jnp.abs(plain - sample(7.5)).max() > 0.1


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "pndm"])
def test_one_dict_of_coefficients_for_each_call_of_the_network(sampler):
    stage = build_stage("reference", {"unet": UNET, "schedule": {"name": "scaled_linear"}})
    steps = stage.step_coeffs(StageSettings(steps=5, sampler=sampler))
    assert len(steps) == 5 + (sampler == "pndm")
    whole = stage.sampler(sampler).coefficients(5)
    jax.tree.map(np.testing.assert_array_equal, {k: np.stack([s[k] for s in steps]) for k in steps[0]}, whole)


def test_previews_are_sampled_as_the_fields_of_the_config_say():
    assert cascade().preview_settings == StageSettings(2.0, 1.0, 16)
    assert build_stage("reference", {"unet": UNET}).preview_settings == StageSettings(3.0, 1.0, 20)
    stage = cascade(preview_steps=3, preview_guidance_scale=4.0, preview_reference_guidance_scale=1.5)
    assert stage.preview_settings == StageSettings(4.0, 1.5, 3)
    assert stage.parts() == cascade().parts()  # an exported part has settings of its own
    with pytest.raises(ValueError, match=r"config\.model\.preview_steps is 0, but must be a whole number from 1 to"):
        cascade(preview_steps=0)


def test_stage_with_a_field_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"config.model of stage temporal has no field nonsense; its fields are cycle"):
        build_stage("temporal", {"upsampler": {}, "nonsense": 1})
    with pytest.raises(ValueError, match=r"config.model of stage cascade needs the field unet"):
        build_stage("cascade", {})
    with pytest.raises(ValueError, match=r"config.stage is 'nonsense'; the stages are text, "):
        build_stage("nonsense", {})
    stage = build_stage("decoder", {"decoder": {"dtype": "float8"}})
    with pytest.raises(ValueError, match=r"config.model.decoder.dtype is 'float8'; it may be float32, bfloat16"):
        _ = stage.network


def test_lists_of_a_config_become_tuples():
    @dataclasses.dataclass(frozen=True)
    class Holder:
        values: tuple = ()
        dtype: object = None

    built = build_network(Holder, {"values": [[1, 2], [3]], "dtype": "bfloat16"}, "here")
    assert built == Holder(((1, 2), (3,)), jnp.bfloat16)


def test_frames_and_their_integers():
    frames = jnp.arange(256, dtype=jnp.uint8)
    unit = to_unit(frames)
    assert (unit[0], unit[255]) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(unit), frames)
    np.testing.assert_array_equal(to_uint8(jnp.array([-3.0, 3.0])), [0, 255])


def test_resize_averages_down_and_leaves_what_fits():
    x = normal(2, 3, 4, 4, 5)
    assert resize(x, 4) is x
    assert resize(x, 2).shape == (2, 3, 2, 2, 5)
    flat = jnp.full((1, 4, 4, 1), 0.7)
    for side in (2, 8):
        np.testing.assert_allclose(resize(flat, side), 0.7, rtol=1e-6)


def test_blending_is_linear_and_an_untrained_upsampler_of_pairs_does_no_more():
    latents = normal(2, 3, 4, 4, 4)
    blended = blend(latents, 4)
    assert blended.shape == (2, 9, 4, 4, 4)
    for i in range(8):
        left, share = divmod(i, 4)
        expected = (1 - share / 4) * latents[:, left] + share / 4 * latents[:, left + 1]
        np.testing.assert_allclose(blended[:, i], expected, atol=1e-6)
    np.testing.assert_array_equal(blended[:, 8], latents[:, 2])

    upsampler = {
        "flow_widths": (8,),
        "refine_widths": (8,),
        "feature_channels": 4,
        "groups": 4,
        "context_frames": False,
    }
    stage = build_stage("temporal", {"upsampler": upsampler, "factor": 4})
    params = jax.jit(stage.init)(jax.random.key(0), {"latents": blended})["temporal_upsampler"]
    made = jax.jit(stage.upsample, static_argnums=2)(params, latents, 4)
    np.testing.assert_allclose(made, blended, atol=1e-5)
    with pytest.raises(ValueError, match=r"config.data.num_frames is 8: it must be n \* 4 \+ 1"):
        stage.loss({}, {}, {"latents": blended[:, 1:]}, jax.random.key(0))


def test_upsampler_is_measured_in_decibels_over_blending():
    upsampler = {"flow_widths": (8,), "refine_widths": (8,), "groups": 4, "context_frames": False}
    stage = build_stage("temporal", {"upsampler": upsampler, "factor": 2})
    slow, fast = normal(1, 5, 4, 4, 4), 30 * normal(1, 5, 4, 4, 4, seed=1)
    params = jax.jit(stage.init)(jax.random.key(0), {"latents": slow})
    loss = jax.jit(lambda clips: stage.loss(params, {}, {"latents": clips}, jax.random.key(0)))
    both, metrics = loss(jnp.concatenate([slow, fast]))
    np.testing.assert_allclose(both, (loss(slow)[0] + loss(fast)[0]) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["gain_db"], 0, atol=1e-4)  # untrained it blends
    np.testing.assert_allclose(log_squared(fast / 10) - log_squared(fast), -np.log(100), rtol=1e-5)


def test_decoder_and_discriminator_do_not_train_each_other():
    sizes = {"block_out_channels": (8,), "layers_per_block": 0, "mid_block_layers": 1, "norm_num_groups": 4}
    critic = {"channels": (8,), "norm_num_groups": 4}
    stage = build_stage("decoder", {"decoder": sizes, "discriminator": critic, "adversarial_weight": 0.5})
    video = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 2, 4, 4, 3)), jnp.uint8)
    batch = {"latents": normal(1, 2, 4, 4, 4), "video": video}
    frozen = {"scaling_factor": 1.0, "shift_factor": 0.0}

    @jax.jit
    def gradients(params):
        def terms(params):
            loss, metrics = stage.loss(params, frozen, batch, jax.random.key(0))
            return (metrics["adversarial"], metrics["discriminator"]), (loss, metrics)

        _, pull_back, (loss, metrics) = jax.vjp(terms, params, has_aux=True)
        return pull_back((1.0, 0.0))[0], pull_back((0.0, 1.0))[0], loss, metrics

    def largest(gradient):
        return {part: max(np.abs(x).max() for x in jax.tree.leaves(tree)) for part, tree in gradient.items()}

    *of_terms, loss, metrics = jax.device_get(gradients(random_params(stage, batch)))
    adversarial, discriminator = map(largest, of_terms)
    assert adversarial["discriminator"] == 0
    assert adversarial["video_decoder"] > 0
    assert discriminator["video_decoder"] == 0
    assert discriminator["discriminator"] > 0
    total = metrics["l1"] + 10 * metrics["difference"] + 0.5 * metrics["adversarial"] + metrics["discriminator"]
    np.testing.assert_allclose(loss, total, rtol=1e-5)


def test_hinge_loss():
    np.testing.assert_allclose(hinge(jnp.array([2.0, 0.5]), jnp.array([-3.0, 0.25])), 0.25 + 0.625)


def test_uniformity_of_known_points():
    directions = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    same = jnp.eye(4).at[0, 1].set(1).at[1, 0].set(1)
    # of the pairs that are left, three are at a right angle (squared distance 2) and two opposite (4)
    expected = np.log((3 * np.exp(-4) + 2 * np.exp(-8)) / 5)
    np.testing.assert_allclose(uniformity(directions, same), expected, rtol=1e-5)


def test_prompts_without_the_tokens_that_are_trained_keep_their_states():
    encoder = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_layers": 1, "num_heads": 1}
    fields = {**encoder, "projection_dim": 8, "eos_token_id": 8}
    stage = TextStage(fields, (8,), 1.0, trained_words=("up", "down"))
    tokens = jnp.array([[1, 3, 8], [1, 5, 8], [1, 4, 8], [2, 4, 8]])
    batch = {"tokens": tokens, "video": jax.random.randint(jax.random.key(0), (4, 2, 8, 8, 3), 0, 255, jnp.uint8)}
    config = text.get_config("words=circling").optimizer
    config.warmup_steps = 0
    optimizer = make_optimizer(config, 10)
    state = jax.jit(functools.partial(init_state, stage, optimizer))(jax.random.key(1), batch)
    step = jax.jit(functools.partial(train_step, stage, optimizer, 0.9, 1, 0))
    trained, _ = step(state, {"trained_tokens": jnp.array([3, 5])}, batch)
    before, after = (
        np.asarray(stage.network.apply({"params": p["text_encoder"]}, tokens)[0]) for p in (state.params, trained.ema)
    )
    np.testing.assert_array_equal(before[2:], after[2:])
    assert (before[:2, 1] != after[:2, 1]).any(axis=-1).all()
    assert jax.tree.all(jax.tree.map(lambda a, b: (a != b).any(), *(s.params["video_tower"] for s in (state, trained))))


@pytest.mark.parametrize("logit_normal", [None, (0.7, 1.0)])
def test_timesteps_of_training_have_the_distribution_asked_for(logit_normal):
    stage = dataclasses.replace(cascade(), timestep_logit_normal=logit_normal)
    latents, timesteps = jnp.zeros((4096, 1, 1, 1, 4)), []
    stage.denoising_loss(jax.random.key(0), latents, lambda x, t: (timesteps.append(t), x)[1])
    t = np.asarray(timesteps[0])
    assert t.min() >= 0
    assert t.max() <= 999
    share = (np.sort(t) + 0.5) / 1000
    if logit_normal is None:
        np.testing.assert_allclose(share, (np.arange(4096) + 0.5) / 4096, atol=2e-3)
    else:
        logit = np.log(share / (1 - share))
        np.testing.assert_allclose([logit.mean(), logit.std()], logit_normal, atol=0.02)
