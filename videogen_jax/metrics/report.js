const button = document.getElementById("play");
const videos = [...document.querySelectorAll("video")];
const show = () => { button.textContent = videos.some(v => !v.paused) ? "Pause all videos" : "Play all videos"; };
button.hidden = !videos.length;
button.addEventListener("click", () => {
  const playing = videos.some(v => !v.paused);
  for (const v of videos) playing ? v.pause() : v.play().catch(() => {});
});
for (const v of videos) for (const event of ["play", "pause"]) v.addEventListener(event, show);
show();
