"""Precision, mesh and batch for the devices that the configs of this folder are meant for.

The batch is the global one, over all devices; "data" takes the devices that "fsdp" leaves. Where the batch is larger
than without hardware, there are fewer steps in proportion, so that training sees the same number of examples.
Parameters, their moving average and the optimizer's moments are float32 everywhere, 16 bytes a parameter, and are
sharded over "fsdp"; networks compute in bfloat16. docs/scaling.md has what the TPU compiler reports for each pod.
"""

from ml_collections import ConfigDict

from configs.arguments import Key

# hardware: devices along "fsdp", devices that the batch is meant for
HARDWARE = {
    "v5e": (16, 256),  # 16 GiB a chip, v5e:16x16
    "v5p": (8, 64),  # 95 GiB a chip, v5p:4x4x4
    "h100": (8, 64),  # 80 GB a GPU, eight nodes of eight
    "h200": (8, 64),  # 141 GB a GPU
}
HARDWARE_KEY = Key(None, tuple(HARDWARE))


def set_hardware(
    config: ConfigDict, hardware: str | None, network: str, clips_per_device: int = 1, spread: bool = True
) -> None:
    """Set the fields that depend on the hardware; None leaves all in float32, on as many devices as there are.

    Args:
      config: a training config, changed in place.
      hardware: a key of HARDWARE, or None.
      network: the section of `config.model` with the network that is to compute in bfloat16.
      clips_per_device: examples of a batch on each device.
      spread: shard the parameters over "fsdp"; networks of less than 100 M parameters need no sharding.
    """
    if hardware is None:
        return
    fsdp, devices = HARDWARE[hardware]
    config.mesh.fsdp = fsdp if spread else 1
    examples = config.steps * config.batch_size
    config.batch_size = devices * clips_per_device
    config.steps = round(examples / config.batch_size)
    config.model[network].dtype = "bfloat16"
    if "encoder_dtype" in config.data:
        config.data.encoder_dtype = "bfloat16"
