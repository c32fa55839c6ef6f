"""Words by which messages name time, weather, season, medium, view and colours, in many languages."""

from collections.abc import Mapping
from typing import NamedTuple


class Words(NamedTuple):
    """The words for one thing, as alternatives of a regular expression."""

    spaced: str  # in scripts that put spaces between words
    unspaced: str = ""  # in those that don't


_AR = r"[وفبلك]{0,2}(?:ال)?"  # what Arabic and Hebrew write together with the word
_HE = r"[ובהלמכש]{0,2}"

TIMES: Mapping[str, Words] = {
    "dawn": Words(
        "dawn|daybreak|sunrise|first light|morning|mornings|matin|mattino|mattina|manhã"
        r"|утр(?:о|а|ом|енн\w+)|ранок|sabah|morgengrauen|sonnenaufgang|aube|lever du (?:soleil|jour)"
        r"|amanecer|alba|amanhecer|zonsopgang|świt\w*|рассвет\w*|світан\w*|şafak|gün doğumu|bình minh"
        rf"|{_AR}(?:فجر|شروق|صباح)|{_HE}(?:זריחה|בוקר)|भोर|सुबह|सूर्योदय",
        "黎明|日出|清晨|早晨|早上|朝の|아침|拂晓|夜明け|朝焼け|ยามเช้า|ตอนเช้า|새벽|일출|รุ่งอรุณ|พระอาทิตย์ขึ้น",
    ),
    "day": Words(
        r"midday|noon|daylight|daytime|sunny|sunlit|in the sun|sunshine|broad day|mittags?|sonnig\w*"
        r"|ensoleillé\w*|mediodía|soleado|mezzogiorno|soleggiat\w*|ensolarad\w*|zonnig\w*|słoneczn\w*"
        rf"|полдень|солнечн\w*|сонячн\w*|güneşli|{_AR}(?:ظهيرة|مشمس\w*)"
        rf"|{_HE}(?:צהריים|שמשי)|दोपहर|धूप",
        "正午|中午|白天|阳光|昼|晴れ|한낮|햇살|เที่ยงวัน|กลางวัน",
    ),
    "golden": Words(
        "sunset|sundown|golden hour|evening sun|sonnenuntergang|abendsonne|coucher de soleil|atardecer"
        r"|puesta de sol|tramonto|pôr do sol|zonsondergang|zach[oó]d\w* słońca|закат\w*|захід сонця"
        rf"|gün batımı|hoàng hôn|{_AR}غروب|{_HE}שקיעה|सूर्यास्त",
        "日落|夕阳|夕陽|夕日|夕焼け|일몰|노을|พระอาทิตย์ตก",
    ),
    "dusk": Words(
        r"dusk|twilight|evening|abends?|soir|soirée|вечер\w*|вечір|wiecz[oó]r\w*|akşam\w*|blue hour"
        r"|nightfall|abenddämmerung|dämmerung|crépuscule|crepúsculo|crepuscolo|schemering|zmierzch\w*"
        rf"|сумер\w*|сутінк\w*|alacakaranlık|{_AR}(?:غسق|شفق|مساء)"
        rf"|{_HE}(?:דמדומים|ערב)|गोधूलि",
        "黄昏|黃昏|薄暮|傍晚|夕暮れ|夕方|황혼|저녁|พลบค่ำ|สนธยา",
    ),
    "night": Words(
        "night|nights|nighttime|night-time|midnight|moonlit|moonlight|starry|starlit|by candlelight"
        r"|nachts?|nächtlich\w*|mitternacht|nuit|minuit|noches?|nocturn\w*|medianoche|notte|mezzanotte"
        r"|noite|meia-noite|natt|noc|nocy|nocą|ноч(?:ь|и|ью|ной|ная|ное|ные|ному|ном)|полноч\w*|ніч|ночі"
        rf"|вночі|gece|gecesi|đêm|{_AR}(?:ليل|ليلة|ليلا|ليلاً)|{_HE}(?:לילה|ליל)|रात",
        "夜晚|夜里|夜景|夜空|深夜|午夜|月夜|星空|今夜|夜の|夜に|の夜|雨夜|雪夜|冬夜|夏夜|之夜|밤하늘|한밤"
        "|밤의|밤에|야경|กลางคืน|ค่ำคืน|ราตรี",
    ),
}

WEATHERS: Mapping[str, Words] = {
    "storm": Words(
        r"storms?|stormy|thunderstorms?|tempest|hurricane|gewitter|stürm\w*|sturm|orages?|tempête"
        r"|tormentas?|tempesta|tempestade|onweer|burz\w+|шторм\w*|гроз[аыуеой]\w*|бур[яиюе]|fırtına\w*|bão"
        rf"|{_AR}(?:عاصفة|عاصف)|{_HE}(?:סערה|סופה)|तूफान|तूफ़ान",
        "暴风雨|暴風雨|风暴|雷雨|嵐の|大嵐|폭풍|พายุ",
    ),
    "rain": Words(
        r"rain|rains|rainy|raining|drizzle|downpour|regen\w*|regnerisch|pluie|pluvieu\w+|lluvia|lluvios\w"
        rf"|pioggia|chuva|regn|deszcz\w*|дожд\w*|дощ\w*|yağmur\w*|mưa|{_AR}(?:مطر|ممطر\w*)"
        rf"|{_HE}(?:גשם|גשום)|बारिश|वर्षा",
        "下雨|雨天|雨中|雨夜|雨の|梅雨|비 오는|비가 오|비가 내리|빗속|ฝน",
    ),
    "fog": Words(
        r"fog|foggy|mist|misty|nebel\w*|neblig\w*|brouillard|brume\w*|niebla|nebbia|neblina|nevoeiro"
        rf"|mgł\w+|туман\w*|sisli|{_AR}(?:ضباب\w*)|{_HE}ערפל|कोहरा|कोहरे",
        "雾|霧|안개|หมอก",
    ),
    "snow": Words(
        r"snow|snows|snowy|snowing|snowfall|snowstorm|blizzard|schnee\w*|verschneit\w*|neige\w*|enneigé\w*"
        r"|nieve|nevando|nevado|neve|sneeuw\w*|snö|śnie\w+|śnieg\w*|снег\w*|снеж\w*|сніг\w*|kar yağ\w*"
        rf"|karlı|tuyết|{_AR}(?:ثلج|ثلوج)|{_HE}שלג|बर्फ",
        "下雪|雪景|雪中|雪地|雪山|雪の|大雪|눈 내리는|설경|หิมะ",
    ),
}

SEASONS: Mapping[str, Words] = {
    "spring": Words(
        r"(?<!hot )spring(?! water)|springtime|frühling\w*|frühjahr\w*|printemps|printani\w+|primavera\w*"
        rf"|voorjaar|wiosn\w+|весн\w*|весенн\w*|bahar|ilkbahar|mùa xuân|{_AR}ربيع"
        rf"|{_HE}אביב|वसंत|बसंत",
        "春天|春季|春日|早春|春の|桜|樱花|봄날|봄의|봄에|봄꽃|ฤดูใบไม้ผลิ",
    ),
    "summer": Words(
        r"summer|summertime|midsummer|sommer\w*|(?:en |l['’]|d['’]|cet )été|estival\w*|verano|estiv\w+"
        r"|verão|zomer\w*|sommar\w*|lato|latem|letni\w*|лет(?:о|а|ом|ний|няя|нее|ние|него)|літо|влітку|yaz"
        rf"|mùa hè|{_AR}صيف|{_HE}קיץ|गर्मी|गर्मियों",
        "夏天|夏季|夏日|盛夏|夏夜|夏の|여름|ฤดูร้อน",
    ),
    "autumn": Words(
        "autumn|autumnal|(?:in|this|of|late|early) fall"
        "|fall (?:sale|colou?rs?|season|leaves|festival|foliage|collection|harvest)|harvest|halloween"
        r"|herbst\w*|automne|automnal\w*|otoño|otoñal|autunn\w+|outono|herfst\w*|höst\w*|jesie\w+|осен\w*"
        rf"|осін\w*|sonbahar|mùa thu|{_AR}خريف|{_HE}(?:סתיו|שלכת)|शरद|पतझड़",
        "秋天|秋季|秋日|深秋|金秋|秋の|紅葉|红叶|가을|단풍|ฤดูใบไม้ร่วง",
    ),
    "winter": Words(
        r"winter|wintry|wintertime|christmas|xmas|winterlich\w*|weihnacht\w*|hiver|hivernal\w*|noël"
        r"|invierno|invernal|navidad\w*|invern\w+|natale|natal|kerst\w*|zim(?:a|y|ie|ą|ow\w+)|зим\w*|kış"
        rf"|mùa đông|{_AR}شتاء|{_HE}חורף|सर्दी|सर्दियों",
        "冬天|冬季|冬日|寒冬|冬夜|冬の|クリスマス|圣诞|겨울|크리스마스|ฤดูหนาว",
    ),
}

MEDIA: Mapping[str, Words] = {
    "photo": Words(
        r"photo|photos|photograph\w?|photographic|photography|photorealis\w+|realistic photo\w*|35 ?mm"
        r"|dslr|polaroid|cinematic|film still|foto|fotos|fotografie\w*|fotografía\w*|photographie\w*"
        r"|fotografia\w*|фото|фотограф\w+|fotoğraf\w*|तस्वीर",
        "照片|摄影|攝影|写真|사진|ภาพถ่าย",
    ),
    "watercolor": Words(
        r"water-?colou?rs?|aquarell\w*|aquarelle\w*|acuarelas?|acquerell\w+|aquarelas?|akwarel\w*"
        r"|акварел\w*|suluboya|जलरंग",
        "水彩|수채화|สีน้ำ",
    ),
    "oil": Words(
        r"oil paint\w*|in oils?|oil on canvas|oils on \w+|impasto|ölgemälde|ölmalerei"
        "|peinture à l['’]huile|óleo|olio su tela|pittura a olio|obraz olejny|масл(?:ом|яная живопись)"
        "|yağlı ?boya|तैलचित्र",
        "油画|油畫|油絵|유화|สีน้ำมัน",
    ),
    "gouache": Words(
        r"gouache|guache|гуаш\w*",
        "水粉|ガッシュ|과슈",
    ),
    "ink": Words(
        "ink (?:drawing|wash|sketch|painting|illustration)|in ink|pen[- ]and[- ]ink|pen drawing|sumi-?e"
        "|tuschezeichnung|encre de chine|tinta china|тушью",
        "水墨|墨画|墨絵|수묵화|หมึกจีน",
    ),
    "pencil": Words(
        r"pencils?(?: drawing| sketch)?|coloured pencil\w*|colored pencil\w*|crayon (?:drawing|sketch)"
        r"|line drawing|bleistift\w*|buntstift\w*|au crayon|a lápiz|a matita|карандаш\w*",
        "铅笔|鉛筆|素描|연필|สีไม้",
    ),
    "pastel": Words(
        r"(?:chalk|oil|soft) pastels?|pastel (?:drawing|painting)|charcoal (?:drawing|sketch)|пастел\w+",
        "粉彩|パステル画|파스텔화",
    ),
    "print": Words(
        r"lino-?cuts?|wood-?cuts?|wood-?block\w*|block print\w*|etching|engraving|riso|risograph\w*"
        r"|screen-?print\w*|silk-?screen\w*|holzschnitt|linolschnitt|linogravure|xilografía|ukiyo-?e"
        r"|гравюр\w*|линогравюр\w*",
        "木刻|版画|版畫|浮世絵|浮世绘|판화",
    ),
    "flat": Words(
        "flat (?:design|illustration|style|vector)|vector(?: art| illustration| graphic)?"
        r"|minimalist(?:ic)? illustration|isometric|flache? illustration|векторн\w+",
        "扁平|矢量|フラットデザイン|벡터|플랫 디자인",
    ),
    "paper": Words(
        "paper-?cuts?|cut[- ]paper|papercraft|origami|collages?|scherenschnitt|papier découpé"
        r"|аппликаци\w+|коллаж\w*",
        "剪纸|剪紙|折纸|切り絵|折り紙|종이접기|콜라주",
    ),
    "render": Words(
        r"3-?d(?: render\w*| style| art| illustration)?|c\.?g\.?i|octane|blender render|claymation"
        "|clay model|plasticine|lego",
        "三维|3D渲染|粘土动画",
    ),
    "comic": Words(
        "comic|comics|comic[- ]book|manga|anime|cartoon|graphic novel|ligne claire|bande dessinée|ghibli"
        r"|комикс\w*|аниме",
        "漫画|漫畫|动漫|アニメ|マンガ|만화|애니메이션|การ์ตูน|อนิเมะ",
    ),
    "pixel": Words(
        "pixel[- ]?art|8-?bit|16-?bit|pixelkunst|пиксель-?арт",
        "像素|ドット絵|픽셀",
    ),
}

VIEWS: Mapping[str, Words] = {
    "close": Words(
        "close-?ups?|macro|extreme close|detail shot|nahaufnahme|gros plan|primer plano|primo piano"
        "|крупный план",
        "特写|特寫|クローズアップ|클로즈업",
    ),
    "above": Words(
        r"aerial(?: view| photo| shot)?|bird['’]?s?[- ]eye\w*|from above|top[- ]down|drone|flat-?lay"
        "|overhead|luftbild|vogelperspektive|vue aérienne|vista aérea|с высоты",
        "俯瞰|航拍|鸟瞰|空撮|항공",
    ),
    "wide": Words(
        r"panoramas?|panoramic|wide[- ](?:shot|angle|view)|vista|панорам\w*|panoramique|panorámica",
        "全景|广角|パノラマ|파노라마",
    ),
}

# in English, as they are to stand in a prompt
COLOURS: Mapping[str, Words] = {
    "red": Words(
        r"red|roten|roter|rotes|rouges?|roj[oa]s?|ross[oaie]|vermelh[oa]s?|красн\w+|czerwon\w+|kırmızı"
        "|أحمر|حمراء|אדום|אדומה|लाल",
        "红色|紅色|赤い|赤色|빨간|สีแดง",
    ),
    "crimson": Words(
        r"crimson|scarlet|vermilion|карминов\w+",
        "朱红|緋色",
    ),
    "orange": Words(
        r"orange(?!s? juice)|оранжев\w+|naranja|turuncu|नारंगी",
        "橙色|オレンジ色|주황|สีส้ม",
    ),
    "amber": Words(
        "amber|ochre|ocher",
        "琥珀色",
    ),
    "yellow": Words(
        r"yellow|gelb|gelbe[nrms]?|jaunes?|amarill[oa]s?|giall[oaie]|amarel[oa]s?|жёлт\w+|желт\w+|żółt\w+"
        "|sarı|صفراء|أصفر|צהוב|צהובה|पीला|पीली",
        "黄色|黃色|黄色い|노란|สีเหลือง",
    ),
    "gold": Words(
        r"gold|goldene?[nrms]?|dorad[oa]s?|doré\w*|золот\w+|सुनहरा",
        "金色|금색|สีทอง",
    ),
    "green": Words(
        r"green|grün|grüne[nrms]?|verte?s?|verdes?|зелён\w+|зелен\w+|zielon\w+|yeşil|خضراء|أخضر|ירוק"
        "|ירוקה|हरा|हरी",
        "绿色|綠色|緑色|緑の|초록|녹색|สีเขียว",
    ),
    "emerald": Words(
        "emerald|jade",
        "翡翠色",
    ),
    "teal": Words(
        r"teal|turquoise|türkis\w*|turquesa|turchese|бирюзов\w+|cyan",
        "青绿|ターコイズ|청록",
    ),
    "blue": Words(
        r"blue|blau|blaue[nrms]?|bleue?s?|azul|azules|azuis|blu|син(?:ий|яя|ее|ие|его|ей|им|их)|голуб\w+"
        r"|niebiesk\w+|mavi|زرقاء|أزرق|כחול|כחולה|नीला|नीली",
        "蓝色|藍色|青い|青色|파란|สีน้ำเงิน|สีฟ้า",
    ),
    "navy": Words(
        "navy(?: blue)?|marineblau",
        "藏青|紺色|남색",
    ),
    "violet": Words(
        r"violet|purple|lila|violett\w*|mauve|morad[oa]s?|rox[oa]s?|фиолетов\w+|fioletow\w+|mor renk\w*"
        "|بنفسجي|סגול|סגולה|बैंगनी",
        "紫色|紫の|보라|สีม่วง",
    ),
    "pink": Words(
        r"pink|rosa|rosane?s?|розов\w+|różow\w+|pembe|وردي|ורוד|ורודה|गुलाबी",
        "粉色|粉红|粉紅|ピンク|분홍|สีชมพู",
    ),
    "brown": Words(
        r"brown|braun|braune[nrms]?|marrón|marrone|marrom|коричнев\w+|भूरा",
        "棕色|褐色|茶色|갈색|สีน้ำตาล",
    ),
    "black": Words(
        r"black|schwarz|schwarze[nrms]?|noire?s?|negr[oa]s?|ner[oaie]|pret[oa]s?|чёрн\w+"
        r"|черн(?:ый|ая|ое|ые|ого|ой|ым)|czarn\w+|siyah|سوداء|أسود|שחור|שחורה|काला|काली",
        "黑色|黒い|黒の|검은|สีดำ",
    ),
    "white": Words(
        r"white|weiß|weiße[nrms]?|weiss\w*|blanch?e?s?|blanc[oa]s?|bianc[oaie]|bianch[ei]|branc[oa]s?"
        r"|бел(?:ый|ая|ое|ые|ого|ой|ым)|biał\w+|beyaz|بيضاء|أبيض|לבן|לבנה|सफेद",
        "白色|白い|하얀|สีขาว",
    ),
    "grey": Words(
        "gr[ea]y|grau|graue[nrms]?|grise?s?|сер(?:ый|ая|ое|ые|ого|ой|ым)",
        "灰色|회색|สีเทา",
    ),
    "silver": Words(
        r"silver|silbern?\w*|argenté\w*|plateado|серебр\w+",
        "银色|銀色|은색",
    ),
}

MONOCHROME: Words = Words(
    r"black[- ](?:and|&)[- ]white|monochrom\w*|greyscale|grayscale|schwarz-?weiß|noir et blanc"
    r"|blanco y negro|bianco e nero|preto e branco|чёрно-бел\w+|черно-бел\w+",
    "黑白|白黒|モノクロ|흑백|ขาวดำ",
)
PASTEL: Words = Words(
    r"pastels?(?! (?:drawing|painting))|pastell\w*",
    "马卡龙色|パステルカラー|파스텔톤",
)
