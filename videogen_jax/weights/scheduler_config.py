"""Conversion between diffusers' `scheduler_config.json` and the settings of our noise schedules and samplers.

Every field of the four supported schedulers is either honoured, or supported only with the value that it has in
published models; a field with another value is named in an error, never ignored. An EulerDiscreteScheduler may have
continuous timesteps (Stable Video Diffusion's): then its fields of betas have no effect, here as in diffusers.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen_jax.runtime.files import load_json, save_json

if TYPE_CHECKING:
    from videogen_jax.stages.latent_diffusion import LatentSampling

_FILE = "scheduler/scheduler_config.json"  # in a model folder
_STAGE_FIELDS = ("schedule", "prediction_type", "timestep_spacing", "steps_offset", "set_alpha_to_one")
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
SAMPLER_OF_CLASS = {
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "pndm",
    "EulerDiscreteScheduler": "euler",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
}
# The fields that are honoured, with diffusers' defaults, by scheduler.
_COMMON = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "steps_offset": 0,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {
        "timestep_spacing": "leading",
        "set_alpha_to_one": True,
        "rescale_betas_zero_snr": False,
    },
    "PNDMScheduler": {"timestep_spacing": "leading", "set_alpha_to_one": False},
    "EulerDiscreteScheduler": {"timestep_spacing": "linspace", "rescale_betas_zero_snr": False},
    "DPMSolverMultistepScheduler": {"timestep_spacing": "linspace", "rescale_betas_zero_snr": False},
}
# Fields that are supported only with these values; the first is diffusers' own default, except for _REQUIRED.
_COMMON_FIXED: dict[str, tuple] = {"trained_betas": (None,)}
_SIGMAS: dict[str, tuple] = {
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "final_sigmas_type": ("zero",),
}
_FIXED: dict[str, dict[str, tuple]] = {
    "DDIMScheduler": {"thresholding": (False,), "clip_sample": (False,)},
    "PNDMScheduler": {"skip_prk_steps": (True,)},
    "EulerDiscreteScheduler": {
        **_SIGMAS,
        "interpolation_type": ("linear",),
        "sigma_min": (None,),
        "sigma_max": (None,),
        "timestep_type": ("discrete",),
    },
    "DPMSolverMultistepScheduler": {
        **_SIGMAS,
        "solver_order": (2,),
        "thresholding": (False,),
        "algorithm_type": ("dpmsolver++",),
        "solver_type": ("midpoint",),
        "lower_order_final": (True,),
        "euler_at_final": (False,),
        "use_lu_lambdas": (False, None),
        "use_flow_sigmas": (False, None),
        "flow_shift": (1.0,),
        "lambda_min_clipped": (-math.inf, "-Infinity"),
        "variance_type": (None,),
        "use_dynamic_shifting": (False,),
        "time_shift_type": ("exponential",),
    },
}
# Fields of an EulerDiscreteScheduler with continuous timesteps. In diffusers another prediction type has discrete
# timesteps all the same, and another spacing scales the noise at the start.
_CONTINUOUS: dict[str, tuple] = {
    **_FIXED["EulerDiscreteScheduler"],
    "timestep_type": ("continuous",),
    "use_karras_sigmas": (True,),
    "prediction_type": ("v_prediction",),
    "timestep_spacing": ("leading",),
    "rescale_betas_zero_snr": (False,),
}
_NOISE_LEVELS = ("sigma_min", "sigma_max")
_RHO = 7.0  # of diffusers, which has no such field
# Fields whose default in diffusers is not supported, so that a config must set them.
_REQUIRED = {"DDIMScheduler": "clip_sample", "PNDMScheduler": "skip_prk_steps"}
# Fields without effect, given the values above. Published configs contain them, and fields of other schedulers too.
_WITHOUT_EFFECT = frozenset({"dynamic_thresholding_ratio", "sample_max_value", "clip_sample_range"})
_LEAST_ALPHAS_CUMPROD = 2.0**-24  # replaces zero terminal SNR where diffusers' samplers would divide by zero


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """The settings of a scheduler_config.json.

    Attributes:
      schedule: arguments of `make_schedule`.
      sampler: one of `samplers.SAMPLERS`.
      prediction_type: "epsilon", "v_prediction" or "sample".
      timestep_spacing, steps_offset: see `samplers.timesteps_for`.
      set_alpha_to_one: whether the last step removes all noise, rather than ending at the first training timestep.
    """

    schedule: Mapping[str, Any]
    sampler: str
    prediction_type: str
    timestep_spacing: str
    steps_offset: int = 0
    set_alpha_to_one: bool = True

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str = "scheduler_config.json") -> "Scheduler":
        """Translate a config written by diffusers.

        Args:
          config: the content of the file.
          where: the file, for messages.

        Raises:
          ValueError: the scheduler, a field or a value is not supported; the message names it and what is supported.
        """
        name = config.get("_class_name")
        if name not in SAMPLER_OF_CLASS:
            raise ValueError(f"{where} describes a {name}; supported are {', '.join(SAMPLER_OF_CLASS)}")
        if name == "EulerDiscreteScheduler" and config.get("timestep_type") == "continuous":
            return cls._from_continuous(config, where)
        fields = {**_COMMON, **_DEFAULTS[name]}
        fixed = {**_COMMON_FIXED, **_FIXED[name]}
        _read_fields(config, fields, fixed, name, where)
        required = _REQUIRED.get(name)
        if required is not None and required not in config:
            default, supported = not fixed[required][0], fixed[required][0]
            raise ValueError(
                f"{where} lacks {required}, whose default is {default}; a {name} is supported only with {supported}"
            )
        if fields["beta_schedule"] not in SCHEDULES:
            raise ValueError(
                f"{where}: beta_schedule is {fields['beta_schedule']!r}; supported are {', '.join(SCHEDULES)}"
            )
        schedule = {"name": SCHEDULES[fields["beta_schedule"]]}
        schedule |= {key: fields[key] for key in ("num_train_timesteps", "beta_start", "beta_end")}
        schedule["rescale_zero_terminal_snr"] = bool(fields.get("rescale_betas_zero_snr", False))
        if schedule["rescale_zero_terminal_snr"] and SAMPLER_OF_CLASS[name] in ("euler", "dpmpp_2m"):
            schedule["least_alphas_cumprod"] = _LEAST_ALPHAS_CUMPROD
        return cls(
            schedule,
            SAMPLER_OF_CLASS[name],
            fields["prediction_type"],
            fields["timestep_spacing"],
            int(fields["steps_offset"]),
            bool(fields.get("set_alpha_to_one", True)),
        )

    @classmethod
    def _from_continuous(cls, config: Mapping[str, Any], where: str) -> "Scheduler":
        """`from_config` of an EulerDiscreteScheduler with continuous timesteps."""
        kind = "EulerDiscreteScheduler with timestep_type 'continuous'"
        fields: dict[str, Any] = dict.fromkeys(_NOISE_LEVELS) | {"steps_offset": 0}
        fixed = {field: values for field, values in (_COMMON_FIXED | _CONTINUOUS).items() if field not in fields}
        _read_fields(config, fields, fixed, kind, where)
        defaults = {**_COMMON, **_DEFAULTS["EulerDiscreteScheduler"], "use_karras_sigmas": False}
        for field, default in defaults.items():
            if field in fixed and field not in config and default not in fixed[field]:
                raise ValueError(
                    f"{where} lacks {field}, whose default is {default!r}; a {kind} is supported only with"
                    f" {fixed[field][0]!r}"
                )
        for field in _NOISE_LEVELS:
            value = fields[field]
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise ValueError(f"{where}: {field} is {value!r}; a {kind} is supported only with a number")
        schedule = {"name": "karras"} | {field: float(fields[field]) for field in _NOISE_LEVELS}
        return cls(schedule, "euler", "v_prediction", "leading", int(fields["steps_offset"]))

    def _to_continuous(self) -> dict[str, Any]:
        """`to_config` of a schedule of continuous timesteps."""
        defaults = {"sigma_min": 0.002, "sigma_max": 700.0}
        ours = {"sampler": self.sampler, "prediction_type": self.prediction_type}
        ours |= {"timestep_spacing": self.timestep_spacing, "set_alpha_to_one": self.set_alpha_to_one}
        ours |= {"rho": self.schedule.get("rho", _RHO), "sigmas": tuple(self.schedule.get("sigmas", ()))}
        theirs = {"sampler": "euler", "prediction_type": "v_prediction", "timestep_spacing": "leading"}
        theirs |= {"set_alpha_to_one": True, "rho": _RHO, "sigmas": ()}
        for field, value in ours.items():
            if value != theirs[field]:
                raise ValueError(
                    f"{field} is {value!r}, but diffusers has a 'karras' schedule of continuous timesteps only with"
                    f" {theirs[field]!r}"
                )
        return {
            "_class_name": "EulerDiscreteScheduler",
            "timestep_type": "continuous",
            "use_karras_sigmas": True,
            **{field: self.schedule.get(field, default) for field, default in defaults.items()},
            "prediction_type": self.prediction_type,
            "timestep_spacing": self.timestep_spacing,
            "steps_offset": self.steps_offset,
        }

    def stage_fields(self) -> dict[str, Any]:
        """The fields of a `LatentSampling` that samples as these settings ask for."""
        return {name: getattr(self, name) for name in _STAGE_FIELDS}

    def to_config(self) -> dict[str, Any]:
        """Return the content of scheduler_config.json from which `from_config` restores these settings.

        Raises:
          ValueError: a "karras" schedule that diffusers does not have; the message names the field.
        """
        if self.schedule["name"] == "karras":
            return self._to_continuous()
        name = next(public for public, sampler in SAMPLER_OF_CLASS.items() if sampler == self.sampler)
        schedule = dict(self.schedule)
        public = next(public for public, ours in SCHEDULES.items() if ours == schedule["name"])
        defaults = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
        config = {
            "_class_name": name,
            "beta_schedule": public,
            **{key: schedule.get(key, default) for key, default in defaults.items()},
            "prediction_type": self.prediction_type,
            "timestep_spacing": self.timestep_spacing,
            "steps_offset": self.steps_offset,
        }
        if name != "PNDMScheduler":
            config["rescale_betas_zero_snr"] = bool(schedule.get("rescale_zero_terminal_snr", False))
        if name in ("DDIMScheduler", "PNDMScheduler"):
            config["set_alpha_to_one"] = self.set_alpha_to_one
        if name == "DDIMScheduler":
            config["clip_sample"] = False
        if name == "PNDMScheduler":
            config["skip_prk_steps"] = True
        return config


def _read_fields(
    config: Mapping[str, Any], fields: dict[str, Any], fixed: Mapping[str, tuple], name: str, where: str
) -> None:
    """Write into `fields` the values that the config has for them.

    Args:
      config: the content of the file `where`.
      fields: those that are honoured, with their defaults.
      fixed: those that are supported only with these values.
      name: of the scheduler, for messages.

    Raises:
      ValueError: another field, or another value of a fixed one.
    """
    known = set().union(*_DEFAULTS.values(), *_FIXED.values(), _COMMON, _COMMON_FIXED, _WITHOUT_EFFECT)
    for field, value in config.items():
        if field.startswith("_"):
            continue
        if field in fields:
            fields[field] = value
        elif field in fixed:
            if value not in fixed[field]:
                allowed = " or ".join(map(repr, fixed[field]))
                raise ValueError(f"{where}: {field} is {value!r}; a {name} is supported only with {allowed}")
        elif field not in known:
            raise ValueError(f"{where}: {field} is not a supported field of a {name}; remove it")


def load_scheduler(model_folder: str | Path) -> Scheduler:
    """What `scheduler/scheduler_config.json` asks for. ValueError: missing, or a field that is not supported."""
    path = Path(model_folder) / _FILE
    if not path.is_file():
        raise ValueError(f"{path} is missing: the noise schedule of {Path(model_folder) / 'unet'} is not known")
    return Scheduler.from_config(load_json(path), str(path))


def save_scheduler(model_folder: str | Path, stage: "LatentSampling") -> None:
    """Write the `scheduler` folder that goes with a UNet trained here.

    It is DDIM's, or for continuous timesteps Euler's, with the stage's schedule.
    """
    fields = {name: getattr(stage, name) for name in _STAGE_FIELDS}
    sampler = "euler" if stage.schedule["name"] == "karras" else "ddim"
    save_json(Path(model_folder) / _FILE, Scheduler(sampler=sampler, **fields).to_config())
