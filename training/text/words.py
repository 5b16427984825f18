"""The package's own small word lists: everyday vocabulary that needs no other package."""

from typing import Final


def split_words(listed: str) -> tuple[str, ...]:
    """A list as it is written here: with spaces between its words."""
    return tuple(listed.split())


def _phrases(listed: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in listed.replace("\n", " ").split(","))


FIRST_NAMES: Final = split_words("""
Aaron Abigail Adam Alan Alice Amanda Amir Amy Andrew Angela Anna Anthony Arthur Barbara Ben
Beth Brian Carlos Carol Caroline Catherine Charles Charlotte Chen Chloe Claire Daniel David
Deborah Dennis Diana Donald Dorothy Edward Eleanor Elena Elizabeth Ella Emily Emma Eric Ethan
Eva Fatima Felix Fiona Frances Frank George Grace Hannah Harold Harry Helen Henry Ian Ibrahim
Isaac Isabel Ivan Jack Jacob James Jane Janet Jason Jean Jennifer Jessica Joan John Jonathan
Joseph Joyce Julia Karen Kate Keith Kenneth Kevin Laura Leah Leo Linda Lisa Louis Lucy Luke
Margaret Maria Mark Martha Martin Mary Matthew Maya Michael Mohammed Molly Nancy Nathan Nina
Nora Oliver Olivia Oscar Pamela Patrick Paul Peter Philip Priya Rachel Ralph Raymond Rebecca
Richard Robert Roger Rosa Ruth Ryan Samuel Sandra Sarah Scott Sean Sharon Simon Sofia Sophie
Stephen Steven Susan Teresa Thomas Timothy Victor Victoria Vincent Walter Wei William Yusuf Zoe
""")

LAST_NAMES: Final = split_words("""
Adams Allen Anderson Bailey Baker Bell Bennett Brooks Brown Butler Campbell Carter Clark Collins
Cook Cooper Cox Davies Davis Diaz Edwards Evans Fisher Foster Garcia Gray Green Griffin Hall
Harris Hill Howard Hughes Jackson Jenkins Johnson Jones Kelly Khan King Kumar Lee Lewis Long
Lopez Martin Mason Miller Mitchell Moore Morgan Morris Murphy Nelson Nguyen Parker Patel Perry
Peterson Phillips Powell Price Reed Reynolds Rivera Roberts Robinson Rogers Ross Russell Sanders
Scott Shaw Simmons Smith Stewart Stone Taylor Thompson Turner Walker Ward Watson White Williams
Wilson Wood Wright Young
""")

PLACES: Final = _phrases("""
Africa, America, Amsterdam, Asia, Athens, Atlanta, Australia, Austria, Bangkok, Barcelona,
Belgium, Berlin, Birmingham, Boston, Brazil, Bristol, Brussels, Cairo, California, Cambridge,
Canada, Chicago, China, Copenhagen, Dallas, Denmark, Denver, Detroit, Dublin, Edinburgh, Egypt,
England, Europe, Finland, Florida, France, Geneva, Germany, Glasgow, Greece, Hamburg, Helsinki,
Hong Kong, Houston, Iceland, India, Ireland, Istanbul, Italy, Japan, Kenya, Leeds, Lisbon,
Liverpool, London, Los Angeles, Madrid, Manchester, Melbourne, Mexico, Milan, Montreal, Moscow,
Munich, Nairobi, Naples, New York, New Zealand, Nigeria, Norway, Oslo, Oxford, Paris,
Philadelphia, Poland, Portugal, Prague, Rome, San Francisco, Scotland, Seattle, Singapore, Spain,
Stockholm, Sweden, Switzerland, Sydney, Texas, Tokyo, Toronto, Turkey, Vancouver, Venice, Vienna,
Wales, Warsaw, Washington, Zurich
""")

NOUNS: Final = split_words("""
account address airport animal answer apartment apple army arrow artist author baby bag ball
balcony bank barn basket battery beach bed bedroom bell bicycle bill bird blanket boat body book
border bottle bowl box boy branch bread breakfast bridge brother budget building bus button cake
camera camp candle captain car card carpet castle cat chair chapter cheese child church circle
city class clock cloth cloud coat coffee coin college colour company computer concert contract
corner cottage country cousin cow cup curtain cushion customer daughter deal decision desk detail
dinner doctor dog door dream dress driver drum engine engineer envelope evening event exam
factory family farm farmer father feather fence field film finger fire fish flag floor flower
forest fork fox friend frog fruit garage garden gate ghost gift girl glass glove goat grandmother
guest guitar hall hammer hand harbour hat hill hole holiday horse hospital hotel hour house
husband idea insect island jacket jar job journey judge key kitchen kite knife ladder lady lake
lamp landlord language lawyer leader leaf lemon lesson letter library lion list lock machine
magazine manager map market meal meeting message mirror mistake moment monkey moon morning mother
mountain mouse museum neighbour nest newspaper night noise nose notebook novel number nurse
ocean office officer onion orange orchard owner page painting palace paper parcel parent park
party passenger path patient pen pencil phone photograph piano picture pillow pilot pipe plan
plane plant plate player pocket poem poet police pond potato present president price prisoner
problem project puppy queen question rabbit radio railway report restaurant result ribbon ring
river road robot roof room rope rose rule sailor salad sandwich school scientist sea seat
secret sentence servant sheep shelf ship shirt shoe shop shoulder signal singer sister snake
soldier son song soup spoon square stable stamp star station statue stone storm story stranger
street student suitcase summer supper table tailor teacher team telephone temple tent theatre
thief ticket tiger tool tower town toy train tree triangle trip truck umbrella uncle uniform
valley vegetable video village visitor voice waiter wall watch wave wedding whale wheel wife
window winter wolf woman writer yard
""")

ADJECTIVES: Final = split_words("""
afraid ancient angry awful beautiful big bitter black blue bold brave brief bright broken brown
busy calm careful cheap cheerful clean clear clever cold comfortable common complete cool crowded
cruel curious damp dangerous dark deep delicious different difficult dirty dry dull eager early
easy elegant empty enormous entire exact excellent expensive familiar famous fast fine firm flat
foolish foreign fragile free fresh friendly funny gentle golden good grand grateful great green
grey happy hard harmless heavy hidden hollow honest hungry important impossible innocent jealous
kind large late lazy light lively lonely long loose loud lovely lucky modern mysterious narrow
nasty new nice noisy obvious old ordinary pale patient peaceful perfect plain pleasant polite
poor popular precious pretty private proud public quick quiet rare ready red rich right rough
round rude sad safe secret serious shallow sharp short silent silly silver simple slow small
smooth soft sour square steep sticky strange strict strong stupid sudden sweet tall tender
terrible thick thin thirsty tidy tight tiny tired tough ugly unusual upset useful useless usual
valuable violet warm weak wet white wide wild wise wonderful wooden worried yellow young
""")

# (base, past) of verbs that take a thing or a person.
VERBS: Final = tuple(
    (pair.split("/")[0], pair.split("/")[1])
    for pair in split_words("""
admire/admired avoid/avoided bring/brought build/built burn/burned buy/bought carry/carried
catch/caught check/checked choose/chose clean/cleaned close/closed collect/collected
compare/compared copy/copied count/counted cover/covered cross/crossed defend/defended
deliver/delivered describe/described destroy/destroyed discover/discovered draw/drew
drop/dropped enjoy/enjoyed examine/examined expect/expected explain/explained fetch/fetched
find/found finish/finished fix/fixed follow/followed forget/forgot gather/gathered hate/hated
hear/heard hide/hid hold/held ignore/ignored keep/kept kick/kicked know/knew leave/left lift/lifted
like/liked lose/lost love/loved mention/mentioned miss/missed move/moved need/needed notice/noticed
open/opened order/ordered paint/painted pass/passed pick/picked praise/praised prefer/preferred
protect/protected pull/pulled push/pushed raise/raised reach/reached recognise/recognised
remember/remembered remove/removed rent/rented repair/repaired replace/replaced save/saved see/saw
sell/sold send/sent share/shared show/showed steal/stole study/studied take/took throw/threw
touch/touched trust/trusted turn/turned understand/understood use/used visit/visited want/wanted
wash/washed watch/watched welcome/welcomed write/wrote
""")
)

PEOPLE: Final = _phrases("""
I, you, we, they, he, she, my mother, his father, her brother, our teacher, the old man,
the little girl, the boy, a young woman, the children, my friend, their neighbour, the driver,
the doctor, some people, everybody, nobody, someone, the whole family, the captain, your sister,
the two men, the stranger, my aunt, the students, one of the soldiers, the king, the shopkeeper,
both of them, most of us, his wife, her husband, the nurse, the crowd, all the others
""")

WHERE: Final = _phrases("""
in the garden, at the station, near the river, on the table, under the bridge, behind the house,
in the kitchen, at school, at work, in town, by the sea, across the street, next to the window,
on the hill, in the city, at the office, down the road, outside the church, in the old barn,
at the market, upstairs, downstairs, along the shore, in the middle of the forest, at home,
on the second floor, beside the fire, through the window, over the wall, inside the cave
""")

WHEN: Final = _phrases("""
yesterday, today, last night, this morning, last week, every day, after lunch, before dinner,
two days ago, in the evening, at noon, on Sunday, last summer, all day long, at midnight, just now,
a year ago, again, once more, in the winter, a long time ago, for the first time, at last,
without a word, as usual, in silence, before sunrise, the next morning, by accident, on purpose
""")

DEVICES: Final = _phrases("""
light, lights, radio, television, heating, fan, music, alarm, kitchen light, bedroom lights, oven,
heater, air conditioning, microphone, camera, projector, washing machine, garden lights, speaker
""")

PHRASES: Final = _phrases("""
hello, hi there, good morning, good afternoon, good evening, good night, how are you,
how are you doing today, I'm fine thank you, nice to meet you, what's your name, thanks a lot,
thank you very much, you're welcome, no problem, excuse me, I'm sorry, please, yes, no, maybe,
of course, sure, okay, all right, that's right, that's wrong, I don't know, I don't think so,
I think so, I hope so, I agree with you, I'm not sure, what do you mean, can you hear me,
can you help me, could you repeat that please, could you speak more slowly, say that again,
wait a minute, just a moment, hold on, hurry up, come here, come in, sit down, stand up, go away,
be quiet, be careful, look at this, listen to me, let me see, let me think, let's go,
let's get started, here you are, here we go, there it is, that's all, that's it, that's great,
that's a good idea, well done, good luck, congratulations, happy birthday, happy new year,
have a nice day, see you later, see you tomorrow, goodbye, take care, what time is it,
what day is it today, what's the weather like, it's raining, it's very cold today, I'm hungry,
I'm on my way, I'm running late, I'll be right back, I'll call you back, I love you, I miss you,
I need some help, I want to go home, never mind, don't worry, it doesn't matter, it's up to you,
I can't believe it, I've no idea, we're almost there, they're not here yet, who is it,
where are you from, what happened, why not, is everything all right, one two three testing
""")

COMMANDS: Final = _phrases("""
stop, start, pause, play, next, previous, cancel, repeat, continue, go back, go on, undo, redo,
volume up, volume down, louder, softer, scroll down, scroll up, zoom in, zoom out, new line,
new paragraph, delete that, select all, copy that, paste it here, save the file, open the window,
close the window, take a screenshot, answer the call, hang up, mute the microphone, read it again
""")
