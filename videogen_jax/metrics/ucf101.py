"""UCF-101 (Soomro et al. 2012, arXiv 1212.0402): its classes, a sentence for each, and its lists of videos."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# In the order of the data set's classInd.txt, which is also that of C3D's outputs. The sentences are this project's
# own: the papers that write some (Make-A-Video, PYoCo) do not all publish them.
SENTENCES = {
    "ApplyEyeMakeup": "A woman applies makeup to her eyes in front of the camera.",
    "ApplyLipstick": "A woman puts lipstick on her lips, close up.",
    "Archery": "An archer draws a bow and shoots an arrow at a target.",
    "BabyCrawling": "A baby crawls across the floor on hands and knees.",
    "BalanceBeam": "A gymnast performs on a balance beam in a gymnasium.",
    "BandMarching": "A marching band plays its instruments as it walks down a street.",
    "BaseballPitch": "A pitcher throws a baseball from the mound.",
    "Basketball": "A person shoots a basketball at the hoop.",
    "BasketballDunk": "A basketball player jumps and dunks the ball through the hoop.",
    "BenchPress": "A man lies on a bench and presses a barbell up from his chest.",
    "Biking": "A person rides a bicycle along a road.",
    "Billiards": "A person plays billiards, hitting a ball on the table with a cue.",
    "BlowDryHair": "A person dries hair with a hair dryer.",
    "BlowingCandles": "A person blows out the candles on a birthday cake.",
    "BodyWeightSquats": "A person does squats without any weights.",
    "Bowling": "A person rolls a bowling ball down the lane towards the pins.",
    "BoxingPunchingBag": "A boxer hits a heavy punching bag in a gym.",
    "BoxingSpeedBag": "A boxer hits a small speed bag with quick, regular punches.",
    "BreastStroke": "A swimmer swims breaststroke in a pool.",
    "BrushingTeeth": "A person brushes their teeth with a toothbrush.",
    "CleanAndJerk": "A weightlifter lifts a barbell to the shoulders and then above the head.",
    "CliffDiving": "A person dives from a high cliff into the water.",
    "CricketBowling": "A cricket player runs up and bowls the ball.",
    "CricketShot": "A batsman hits the ball with a bat in a cricket match.",
    "CuttingInKitchen": "A person cuts food with a knife on a board in a kitchen.",
    "Diving": "A diver jumps from a springboard and dives into a swimming pool.",
    "Drumming": "A person plays a drum kit with drumsticks.",
    "Fencing": "Two fencers in white suits and masks fight with swords.",
    "FieldHockeyPenalty": "A field hockey player takes a penalty against the goalkeeper.",
    "FloorGymnastics": "A gymnast tumbles on the floor in a gymnastics competition.",
    "FrisbeeCatch": "A person runs and catches a flying frisbee on a field.",
    "FrontCrawl": "A swimmer swims front crawl in a pool.",
    "GolfSwing": "A golfer swings a club and hits the ball on a golf course.",
    "Haircut": "A hairdresser cuts a person's hair with scissors.",
    "Hammering": "A person drives a nail into wood with a hammer.",
    "HammerThrow": "An athlete spins around and throws the hammer in a stadium.",
    "HandstandPushups": "A person does push-ups while standing upside down on their hands.",
    "HandstandWalking": "A person walks on their hands, upside down.",
    "HeadMassage": "A person gets a head massage from another person's hands.",
    "HighJump": "An athlete runs up and jumps over a high bar onto a mat.",
    "HorseRace": "Jockeys race their horses along a track.",
    "HorseRiding": "A person rides a horse.",
    "HulaHoop": "A person spins a hula hoop around the waist.",
    "IceDancing": "A couple dances together on ice skates in a rink.",
    "JavelinThrow": "An athlete runs and throws a javelin across the field.",
    "JugglingBalls": "A person juggles several balls with both hands.",
    "JumpingJack": "A person does jumping jacks, swinging arms and legs apart.",
    "JumpRope": "A person skips over a jump rope.",
    "Kayaking": "A person paddles a kayak through the water.",
    "Knitting": "Hands knit with two needles and wool, close up.",
    "LongJump": "An athlete runs up and jumps far into the sand pit.",
    "Lunges": "A person does lunges, stepping forward and bending the knees.",
    "MilitaryParade": "Soldiers in uniform march in step in a military parade.",
    "Mixing": "A person mixes batter in a bowl in a kitchen.",
    "MoppingFloor": "A person mops the floor of a room.",
    "Nunchucks": "A person swings nunchucks around the body.",
    "ParallelBars": "A gymnast swings on the parallel bars.",
    "PizzaTossing": "A baker tosses and spins pizza dough in the air.",
    "PlayingCello": "A musician plays the cello with a bow.",
    "PlayingDaf": "A person plays the daf, a large frame drum.",
    "PlayingDhol": "A person plays the dhol, a drum hung from the neck, with two sticks.",
    "PlayingFlute": "A person plays the flute.",
    "PlayingGuitar": "A person plays the guitar.",
    "PlayingPiano": "A person plays the piano, hands moving over the keys.",
    "PlayingSitar": "A musician sits on the floor and plays the sitar.",
    "PlayingTabla": "A musician plays the tabla, a pair of small drums, with both hands.",
    "PlayingViolin": "A person plays the violin.",
    "PoleVault": "An athlete vaults over a high bar with a long pole.",
    "PommelHorse": "A gymnast swings both legs in circles on the pommel horse.",
    "PullUps": "A person does pull-ups on a bar.",
    "Punch": "Two boxers punch each other in a boxing ring.",
    "PushUps": "A person does push-ups on the floor.",
    "Rafting": "A group of people rafts down a river through white water.",
    "RockClimbingIndoor": "A person climbs an indoor climbing wall.",
    "RopeClimbing": "A person climbs up a hanging rope.",
    "Rowing": "Rowers row a long boat across the water.",
    "SalsaSpin": "A couple dances salsa and the woman spins.",
    "ShavingBeard": "A man shaves his beard with a razor.",
    "Shotput": "An athlete turns and puts the shot in a stadium.",
    "SkateBoarding": "A person rides a skateboard.",
    "Skiing": "A skier skis down a snowy slope.",
    "Skijet": "A person rides a jet ski over the water.",
    "SkyDiving": "Skydivers fall through the sky before their parachutes open.",
    "SoccerJuggling": "A person juggles a soccer ball with the feet.",
    "SoccerPenalty": "A soccer player takes a penalty kick at the goal.",
    "StillRings": "A gymnast holds himself up on the still rings.",
    "SumoWrestling": "Two sumo wrestlers push each other in the ring.",
    "Surfing": "A surfer rides a wave on a surfboard.",
    "Swing": "A child swings back and forth on a swing.",
    "TableTennisShot": "A person hits the ball with a paddle in a game of table tennis.",
    "TaiChi": "A person practises tai chi with slow movements.",
    "TennisSwing": "A tennis player swings a racket and hits the ball.",
    "ThrowDiscus": "An athlete spins around and throws the discus.",
    "TrampolineJumping": "A person jumps up and down on a trampoline.",
    "Typing": "Hands type on a computer keyboard, close up.",
    "UnevenBars": "A gymnast swings on the uneven bars.",
    "VolleyballSpiking": "A volleyball player jumps and spikes the ball over the net.",
    "WalkingWithDog": "A person walks a dog on a leash.",
    "WallPushups": "A person does push-ups leaning against a wall.",
    "WritingOnBoard": "A person writes on a board with their hand.",
    "YoYo": "A person does tricks with a yo-yo.",
}
CLASSES = tuple(SENTENCES)
_BY_LOWER = {name.lower(): name for name in CLASSES}


def words(name: str) -> str:
    """Return the name of a class as lower-case words: "ApplyEyeMakeup" -> "apply eye makeup"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def class_of(path: str) -> str | None:
    """Return the class of a video by the name of its folder, or else of its file; None if it is of no class.

    Some files differ from their class in case: HandstandPushups/v_HandStandPushups_g01_c01.avi.
    """
    folder, file = os.path.split(path)
    named = re.match(r"v_([A-Za-z]+)_g\d+", file)
    for name in (os.path.basename(folder), named[1] if named else ""):
        if name.lower() in _BY_LOWER:
            return _BY_LOWER[name.lower()]
    return None


def read_list(path: str | os.PathLike, field: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, path of a video within the data set) of a list such as trainlist01.txt.

    Args:
      path: a file of lines `ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`; the number of the class may be missing.
      field: of the config that names the file, for messages.

    Raises:
      ValueError: the file is missing, is not UTF-8, or lists nothing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{field} is {path}, which cannot be read as a list of videos: {error}") from error
    listed = [(number, line.split()[0]) for number, line in enumerate(lines, 1) if line.strip()]
    if not listed:
        raise ValueError(f"{field} is {path}, which lists no videos")
    yield from listed


def count_classes(path: str | os.PathLike, field: str) -> dict[str, int]:
    """Count the videos of each class in a list. ValueError: it cannot be read, or a line is of no class."""
    counts: Counter[str] = Counter()
    for number, video in read_list(path, field):
        name = class_of(video)
        if name is None:
            raise ValueError(f"{field} is {path}: line {number}, {video!r}, is of no class of UCF-101")
        counts[name] += 1
    return {name: counts[name] for name in CLASSES}
