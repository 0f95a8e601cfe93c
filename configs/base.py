"""What the stages of the shapes world share. Each stage's config starts from `get_base_config()`."""

from ml_collections import ConfigDict

# Pairs of layers of which the first is split over "tensor" by its outputs and the second by its inputs, so that what is
# between them need not be gathered (Shoeybi et al. 2019, section 3): heads of attention, feed-forward layers, the
# convolutions of residual blocks and the classifier's last layers. The single head of an autoencoder's attention cannot
# be split.
BY_OUTPUT = r"(attn\d/to_[qkv]|[qkv]_proj|net_0/proj|fc1|conv1|time_emb_proj|features)/kernel$"
BY_INPUT = r"(attn\d/to_out_0|out_proj|net_2|fc2|conv2|temporal_conv1/conv|logits)/kernel$"


def get_base_config() -> ConfigDict:
    """Fields of every training config. A config file sets `stage`, `model` and `data`."""
    config = ConfigDict()
    config.stage = ""
    config.seed = 0
    config.steps = 1000
    config.batch_size = 32
    config.accumulation = 1  # parts that a batch is cut into, one in memory at a time
    config.ema_decay = 0.999
    config.model_folder = "runs/shapes/model"  # where the frozen parts of earlier stages are read
    # A model folder whose parts of this stage give the first parameters; "" for fresh ones. Where it has no such part
    # (Stable Diffusion's), a cascade stage takes its 2D UNet for the spatial layers; the UNet's own folder will do.
    config.init_from = ""
    config.perceptual_weights = ""  # folder with VGG-16's safetensors, for a decoder with a perceptual term

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.final_fraction = 0.02  # of the peak learning rate, at the last step
    config.optimizer.weight_decay = 0.01
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.99
    config.optimizer.clip_norm = 1.0
    config.optimizer.fixed = ""  # regular expression on the parameter's path: what it is found in is not trained

    # Devices along each axis; -1 in one of them: those that are left (docs/distributed.md).
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "frames": 1, "tensor": 1})
    # (regular expression on the parameter's path, partition of its last axes): the first match holds. Large parameters
    # that have no "fsdp" in theirs are spread over it besides, along their largest axis.
    config.sharding_rules = ((BY_OUTPUT, (None, "tensor")), (BY_INPUT, ("tensor", None)))
    config.fsdp_min_size = 2**14  # numbers; what is smaller is sent sooner than gathered

    config.log_every = 20
    config.sample_every = 500
    config.sample_count = 4
    config.checkpoint_every = 250
    config.keep_checkpoints = 2  # the newest
    config.keep_every = 0  # steps that are multiples of it keep their checkpoints for good; 0 for none
    config.loader_threads = 2

    config.image_fraction = 0.0  # share of the batches that are still images, from image_data
    config.image_data = ConfigDict({"source": ""})

    config.data = ConfigDict({"source": "", "split": "train", "seed": 1, "num_clips": 100_000})
    # Sizes of an example (fields of `stages.stage.InputSizes`) for `--aot_topology`, which reads no data.
    config.example = ConfigDict()
    return config
