"""The words that a prompt may say, and what they mean to this engine."""

SCENES: dict[str, str] = {
    "mountains": "mountain mountains peak peaks alps alpine summit ridge cliff valley canyon hill"
    " hills highland landscape panorama himalaya volcano glacier hike hiking climb trail vista"
    " nature countryside meadow field fields farm vineyard village cottage barn river fjord lake"
    " montaña montagne berge гора горы 山 산 جبل पहाड़",
    "sea": "sea ocean coast coastal beach shore wave waves harbor harbour port boat boats ship sail"
    " sailing sailor lighthouse island islands bay surf tide underwater whale fish fishing pier"
    " mar mer meer море 海 바다 بحر समुद्र",
    "city": "city urban street streets skyline downtown skyscraper skyscrapers tower towers"
    " building buildings rooftop metropolis traffic alley cyberpunk architecture bridge station"
    " train subway neon market shop startup business ciudad ville stadt город 城 都市 街 도시"
    " مدينة शहर",
    "forest": "forest woods wood trees tree woodland jungle pine birch redwood grove bamboo fox"
    " deer wolf owl bear bosque forêt wald лес 森 林 숲 غابة जंगल",
    "desert": "desert dune dunes sahara oasis camel camels caravan nomad mars martian wasteland"
    " pyramid desierto wüste пустыня 沙漠 砂漠 사막 صحراء रेगिस्तान",
    "cosmos": "space cosmos galaxy galaxies planet planets star stars starry nebula universe"
    " astronaut orbit rocket spaceship moon lunar satellite alien cosmic astronomy telescope comet"
    " eclipse espacio weltraum космос звезда 宇宙 星 空间 우주 فضاء अंतरिक्ष",
    "botanical": "flower flowers floral botanical garden leaf leaves plant plants bloom blossom"
    " petals rose tulip tulips fern ferns herb herbs spring orchid lotus sunflower wildflowers"
    " bouquet tropical monstera flor fleur blume цветок цветы 花 꽃 زهرة फूल bee butterfly"
    " hummingbird",
    "still_life": "still-life vase bottle bowl fruit fruits apple apples lemon lemons pear orange"
    " coffee tea cup mug food bread kitchen recipe wine dinner breakfast cake cooking ceramics"
    " pottery candle candles product perfume cosmetics skincare jar table teapot restaurant chef"
    " pasta soup noodles ramen sushi chocolate dessert comida еда 食 料理 음식 طعام खाना",
    "interior": "interior room library bookshop bookshelf bookshelves books study office house home"
    " window windows desk chair sofa living bedroom hallway cabin attic museum gallery corridor"
    " studio lamp reading workspace temple cathedral church hall café cafe classroom keeper"
    " библиотека дом 部屋 书 图书馆 방 مكتبة घर",
    "portrait": "portrait person people woman man girl boy face child children team family model"
    " fashion dancer musician hero queen king astronaut knight samurai elder grandmother couple"
    " crowd character retrato человек женщина 人 女 男 사람 رجل امرأة आदमी औरत",
    "mesh": "abstract gradient gradients mesh background wallpaper technology tech software cloud"
    " data ai app network digital future modern minimal minimalist minimalism code developer"
    " programming finance crypto abstracto abstrakt абстракция 抽象 人工智能 智能 科技 技术 技術"
    " 未来",
    "poster": "geometric bauhaus poster pattern shapes mosaic tiles retro mid-century midcentury"
    " swiss grid memphis constructivist logo graphic typography jazz design deco quilt",
    "papercut": "paper papercut cut-paper origami layered layers waves ribbons flow fluid marble"
    " dream dreamy music podcast calm meditation wellness yoga wind breeze smoke silk collage",
}

LIGHTS: dict[str, str] = {
    "golden": "golden-hour sunset sundown sunlit afternoon warm-light autumn fall late-afternoon"
    " backlit 夕焼け закат",
    "dawn": "dawn sunrise morning daybreak early-morning first-light pastel рассвет утро 朝",
    "dusk": "dusk twilight evening gloaming 黄昏 сумерки",
    "blue": "blue-hour moonlight moonlit nightfall",
    "night": "night midnight nocturnal starry starlight dark darkness stars noche nuit nacht ночь"
    " 夜 밤 ليل रात",
    "day": "day noon midday daylight sunny bright sunlight high-key summer sunshine clear",
    "overcast": "overcast cloudy grey-day gray-day diffuse soft-light softbox rain rainy drizzle winter",
    "mist": "mist misty fog foggy haze hazy ethereal dreamy snow snowy blizzard steam",
    "storm": "storm stormy thunder lightning tempest dramatic hurricane moody ominous chiaroscuro"
    " 嵐 буря عاصفة",
    "lamp": "candlelight candlelit lamplight lamplit lantern lanterns firelight fireplace fireside"
    " lamp cosy cozy",
    "neon": "neon cyberpunk synthwave vaporwave nightclub",
}

WEATHERS: dict[str, str] = {
    "rain": "rain rainy storm stormy drizzle downpour monsoon tempest wet дождь 雨 비 مطر बारिश",
    "snow": "snow snowy snowfall blizzard winter frost christmas снег зима 雪 눈 ثلج",
    "fog": "mist misty fog foggy haze hazy smoke steam туман 霧",
    "stars": "stars starry starlight milky-way starlit",
    "clouds": "cloud clouds cloudy overcast storm stormy",
    "leaves": "autumn fall leaves petals confetti",
    "fireflies": "fireflies firefly magic magical sparks embers enchanted fairy festival lanterns",
}

MEDIUMS: dict[str, str] = {
    "watercolour": "watercolor watercolour aquarelle ink-wash wash",
    "paint": "gouache oil acrylic painting impasto canvas painterly impressionist brush tempera fresco",
    "ink": "line-art lineart ink etching engraving drawing pencil sketch linework woodcut charcoal"
    " comic manga",
    "print": "print risograph riso screenprint screen-print lithograph linocut poster halftone"
    " letterpress ukiyo-e",
    "photo": "photo photograph photography photographic photorealistic 35mm film cinematic analog"
    " polaroid bokeh macro documentary dslr lens",
    "clean": "vector flat 3d render digital illustration isometric clean cgi octane paper-cut papercut",
}

ACCENTS: dict[str, str] = {
    "lighthouse": "lighthouse lighthouses beacon keeper",
    "boat": "boat boats sail sailing sailor ship fishing yacht regatta",
    "house": "house home cottage cabin village barn farm hut",
    "figure": "person people man woman girl boy child traveler traveller hiker wanderer figure"
    " nomad astronaut couple lonely alone walker pilgrim knight samurai explorer",
    "birds": "bird birds gull gulls seagull flock crane cranes swallow swallows raven crow freedom",
    "balloon": "balloon balloons airship adventure",
    "tree": "tree oak acacia willow",
    "camels": "camel camels caravan",
    "books": "book books library bookshop bookshelf bookshelves reading keeper archive scholar study",
    "plant": "plant plants fern jungle greenhouse",
    "cup": "coffee tea cup mug café cafe breakfast",
    "fruit": "fruit fruits apple apples lemon lemons orange oranges pear pears food",
    "bottle": "bottle wine perfume cosmetics skincare product jar",
    "flowers": "flower flowers floral tulip tulips rose roses bouquet bloom blossom",
}

MOODS: dict[str, float] = {  # how strong colour becomes
    "muted": 0.55, "subdued": 0.6, "desaturated": 0.35, "pastel": 0.6, "soft": 0.85, "faded": 0.55,
    "earthy": 0.7,
    "monochrome": 0.08, "monochromatic": 0.6, "black-and-white": 0.0, "grayscale": 0.0, "greyscale": 0.0,
    "vivid": 1.35, "vibrant": 1.35, "bold": 1.25, "saturated": 1.4, "bright": 1.15, "neon": 1.4,
    "psychedelic": 1.5,
    "colorful": 1.3, "colourful": 1.3, "minimal": 0.85, "noir": 0.1, "melancholy": 0.7, "joyful": 1.2,
    "calm": 0.85,
}  # fmt: skip

HORIZONS: dict[str, float] = {  # where the horizon lies, as a share of the height from above
    "low-horizon": 0.78, "high-horizon": 0.36, "wide-shot": 0.68, "aerial": 0.3, "bird's-eye": 0.28,
    "birds-eye": 0.28,
    "close-up": 0.55, "worm's-eye": 0.85, "low-angle": 0.8, "panorama": 0.6,
}  # fmt: skip

PHRASES = (
    "golden hour", "blue hour", "low horizon", "high horizon", "wide shot", "low angle", "close up",
    "line art",
    "still life", "black and white", "soft light", "warm light", "high key", "ink wash", "screen print",
    "cut paper",
    "paper cut", "milky way", "mid century", "forest green", "ice blue", "late afternoon", "early morning",
    "first light", "bird's eye",
)  # fmt: skip
