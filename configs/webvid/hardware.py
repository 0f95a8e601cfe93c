"""Precision, mesh and batch for the devices that the configs of this folder are meant for.

A batch is that of all devices; "data" takes the devices that "fsdp" leaves. Where it is larger than without hardware
there are as many fewer steps, so that as many examples are seen. Parameters, their moving average and the
optimizer's moments are float32 everywhere, 16 bytes a parameter, and are spread over "fsdp"; networks compute in
bfloat16. What a step needs on each pod, as the TPU compiler says, is in docs/scaling.md.
"""

from ml_collections import ConfigDict

# hardware: devices along "fsdp", devices that the batch is meant for
HARDWARE = {
    "v5e": (16, 256),  # 16 GiB a chip, v5e:16x16
    "v5p": (8, 64),  # 95 GiB a chip, v5p:4x4x4
    "h100": (8, 64),  # 80 GB a GPU, eight nodes of eight
    "h200": (8, 64),  # 141 GB a GPU
}


def split_argument(arg: str) -> tuple[list[str], str | None]:
    """ "16,folder,v5e" -> (["16", "folder"], "v5e"): a config's argument without the hardware, and that or None.

    Raises:
      ValueError: two kinds of hardware are named.
    """
    parts = [part.strip() for part in arg.split(",") if part.strip()]
    named = [part for part in parts if part in HARDWARE]
    if len(named) > 1:
        raise ValueError(f"the argument of this config names {' and '.join(named)}: one kind of hardware is enough")
    return [part for part in parts if part not in HARDWARE], named[0] if named else None


def set_hardware(
    config: ConfigDict, hardware: str | None, network: str, clips_per_device: int = 1, spread: bool = True
) -> None:
    """Sets the fields that depend on the hardware; without any, all stays float32 on as many devices as there are.

    Args:
      network: the section of `config.model` with the network that computes in bfloat16.
      clips_per_device: examples of a batch on each device.
      spread: lay the parameters over "fsdp"; networks of less than 100 M parameters need not be.
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
