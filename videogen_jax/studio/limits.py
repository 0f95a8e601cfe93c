"""The limits of the server, in one place."""

import dataclasses

from videogen_jax.stages.settings import NUM_MOTION_SCALES


@dataclasses.dataclass(frozen=True)
class Limits:
    """Upper bounds that keep the server responsive whatever clients send.

    A client is one browser, or everything at one address that does not send the server's cookie; see `clients.py`.

    Attributes:
      prompt: characters in a prompt.
      json_bytes: size of a JSON body.
      body_seconds: time for the body of a request to arrive.
      steps: sampling steps of a stage.
      guidance: guidance scale of the text and of the reference.
      noise: standard deviation of the noise on a reference image.
      fps: smallest and largest frame rate.
      queued: waiting jobs in total; queued_per_client and queued_per_address: of one client or address.
      jobs_kept: finished jobs that can still be queried.
      preview_bytes: total size of the previews of finished jobs.
      streams_per_client, streams_per_address, streams: open event streams.
      upload_bytes, upload_pixels: size of an uploaded reference image.
      upload_side: longer side in pixels; larger images are downscaled to it.
      uploads, uploads_per_client: stored reference images.
      upload_seconds: time for which an upload is stored.
      uploading_per_client, uploading_per_address, uploading: uploads in progress.
      results: videos in the gallery; beyond it the oldest that is not pinned is deleted.
      encoders: images being decoded, or gifs, sheets and previews being encoded, at the same time.
    """

    prompt: int = 500
    json_bytes: int = 64 * 1024
    body_seconds: float = 30.0
    steps: int = 200
    guidance: float = 50.0
    noise: float = 10.0
    fps: tuple[float, float] = (1.0, 120.0)
    queued: int = 32
    queued_per_client: int = 4
    queued_per_address: int = 16
    jobs_kept: int = 64
    preview_bytes: int = 32 * 2**20
    streams_per_client: int = 8
    streams_per_address: int = 32
    streams: int = 256
    upload_bytes: int = 10 * 2**20
    upload_pixels: int = 25_000_000
    upload_side: int = 2048
    uploads: int = 32
    uploads_per_client: int = 8
    upload_seconds: float = 3600.0
    uploading_per_client: int = 2
    uploading_per_address: int = 4
    uploading: int = 16
    results: int = 500
    encoders: int = 2

    @property
    def settings(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest value of each setting of a job."""
        guidance = (0.0, self.guidance)
        return {
            "fps": self.fps,
            "guidance_scale": guidance,
            "reference_guidance_scale": guidance,
            "steps": (1, self.steps),
            "min_guidance_scale": guidance,
            "motion_bucket_id": (0, 255),
            "noise_aug_strength": (0.0, self.noise),
            "conditioning_fps": self.fps,
            "motion_scale": (0, NUM_MOTION_SCALES - 1),
            "strength": (0.05, 1.0),
        }
