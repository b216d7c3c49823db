"""The words a prompt is read for. An underscore joins a phrase; plurals are found by themselves."""

from typing import Final

WORDS: Final[dict[str, dict[str, str]]] = {
    "time": {
        "dawn": "dawn daybreak sunrise sun_rise early_morning first_light",
        "morning": "morning",
        "day": "day noon midday daylight sunny afternoon bright blue_sky",
        "golden": "golden_hour late_afternoon golden_light warm_light",
        "sunset": "sunset sundown sun_set evening",
        "dusk": "dusk twilight blue_hour nightfall gloaming",
        "night": "night midnight nocturnal starlit moonlit moonlight dark nighttime",
    },
    "heaven": {
        "sun": "sun sunlight sunbeam sunshine",
        "moon": "moon moonlight moonlit full_moon crescent",
        "stars": "star starry starlit constellation milky_way starlight night_sky",
        "aurora": "aurora northern_lights polar_light borealis",
        "clouds": "cloud cloudy overcast cumulus",
        "rainbow": "rainbow",
        "lightning": "lightning thunder thunderstorm",
    },
    "weather": {
        "rain": "rain rainy drizzle downpour storm stormy thunderstorm monsoon",
        "snow": "snow snowy snowfall snowing blizzard snowflake",
        "fog": "sea_of_fog sea_of_clouds fog foggy mist misty haze hazy",
    },
    "season": {
        "spring": "spring blossom cherry_blossom sakura",
        "summer": "summer lush tropical",
        "autumn": "autumn fall october autumnal",
        "winter": "winter wintry snow snowy ice icy frozen frost arctic december christmas",
    },
    "place": {
        "space": "space galaxy nebula cosmos universe cosmic planet outer_space interstellar",
        "mountains": "mountain peak alps ridge summit cliff fjord volcano valley himalaya canyon",
        "city": "city skyline cityscape urban downtown skyscraper "
        "metropolis tokyo york manhattan building cyberpunk",
        "forest": "forest wood woodland pine jungle grove conifer fir spruce taiga tree",
        "water": "sea ocean lake water beach coast coastal river "
        "bay shore harbor harbour wave seascape island lagoon fjord",
        "dunes": "desert dune sahara sand",
        "meadow": "meadow field flower garden wildflower poppy tulip "
        "lavender daisy rose grass prairie bloom sunflower buttercup "
        "dandelion crocus peony cornflower bluebell",
        "hills": "hill countryside farmland landscape pasture highland moor tuscany",
        "abstract": "abstract silk flow fluid pattern texture "
        "ribbon psychedelic fractal geometric marble gradient",
    },
    "subject": {
        "cat": "cat kitten kitty feline",
        "dog": "dog puppy wolf hound",
        "fox": "fox",
        "rabbit": "rabbit bunny hare",
        "deer": "deer stag elk moose",
        "bird": "bird gull seagull swallow crow raven flock geese",
        "whale": "whale orca",
        "boat": "boat sailboat ship sail yacht",
        "balloon": "balloon hot_air",
        "lighthouse": "lighthouse",
        "house": "house cabin cottage hut home barn farmhouse",
        "castle": "castle fortress palace tower",
        "oak": "oak lone_tree lonely_tree single_tree old_tree",
        "palm": "palm tropical",
        "person": "wanderer hiker traveler traveller astronaut figure child person samurai knight silhouette",
        "portrait": "portrait face man boy people king selfie headshot",
        "maiden": "woman girl lady queen princess",
        "lantern": "lantern firefly fireflies",
    },
    "style": {
        "mono": "monochrome black_and_white grayscale greyscale noir",
        "sepia": "sepia vintage antique daguerreotype",
        "pastel": "pastel soft gentle delicate dreamy ethereal",
        "vivid": "vivid vibrant colorful colourful saturated neon psychedelic cyberpunk",
        "neon": "neon cyberpunk synthwave vaporwave",
        "moody": "moody gloomy dramatic ominous somber dark_mood mysterious",
        "calm": "calm serene peaceful tranquil quiet minimalist minimal",
        "watercolor": "watercolor watercolour aquarelle",
        "pixel": "pixel_art 8_bit pixelated pixel",
        "oil": "oil_painting painterly impressionist impressionism van_gogh monet",
        "film": "film analog analogue polaroid grainy cinematic",
    },
    "bloom": {
        "d8342c": "poppy",
        "f5c51a": "sunflower buttercup dandelion",
        "8f6bd0": "lavender crocus",
        "f4f0f2": "daisy",
        "e0607e": "rose tulip peony",
        "4f7fe0": "cornflower bluebell",
    },
    "colour": {
        "c8102e": "red crimson scarlet ruby",
        "7a1f2b": "maroon burgundy",
        "f2711c": "orange tangerine",
        "ff8c69": "coral salmon peach",
        "f5c518": "yellow lemon",
        "d9a520": "gold golden amber honey",
        "3c9d4e": "green emerald",
        "8a9a3b": "olive lime",
        "12a5a0": "teal turquoise cyan aqua",
        "2a6fdb": "blue azure cobalt sapphire",
        "1b2a6b": "navy indigo",
        "7d3cc8": "purple violet",
        "b79be0": "lilac mauve",
        "e85fa8": "pink magenta fuchsia",
        "7b4b2a": "brown bronze copper chocolate",
        "f4f1ea": "white ivory cream",
        "1a1a1e": "black obsidian",
        "8e9299": "grey gray silver",
    },
}
"""Kind to name to words that mean it; a word may mean several. Blooms and colours are named by hex code."""

SKY_WORDS: Final = frozenset({"abstract", "sky", "skies", "light", "glow", "background", "horizon"})
"""Nouns whose colour is the whole picture's."""
