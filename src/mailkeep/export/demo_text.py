"""The words of the demo account: invented people, invented talk. Data only; demo.py makes messages of it.

Everybody lives in a domain that is reserved for examples (RFC 2606).
"""

from typing import Final

PEOPLE: Final = (
    ("Anna", "anna@example.org"),
    ("Bela", "bela@example.org"),
    ("Chidi", "chidi@example.com"),
    ("Dilara", "dilara@example.net"),
    ("Emeka", "emeka@example.com"),
    ("Freya", "freya@example.net"),
    ("Goran", "goran@example.org"),
    ("Hana", "hana@example.com"),
    ("Ines", "ines@example.net"),
    ("Jonas", "jonas@example.org"),
    ("ليلى", "layla@example.net"),
    ("李雷", "lilei@example.com"),
    ("Zoë", "zoe@example.org"),
    ("Søren", "soren@example.net"),
)

SUBJECTS: Final = (
    "Boat for the weekend",
    "Who has the keys of the workshop?",
    "Minutes of Tuesday",
    "New photos from the harbour",
    "Question about the invoice of March",
    "Recipe, as promised",
    "Train or ferry?",
    "The printer again",
    "Plan for the summer party",
    "Draft of the leaflet",
    "Books to give away",
    "Change of address",
    "Ticket for the concert",
    "Repair of the north window",
    "Choir: rehearsal moved",
    "Old maps of the coast",
    "Budget, second attempt",
    "Your bicycle is ready",
    "Garden: who waters in August?",
    "Slides for Thursday",
    "Feedback wanted: opening hours",
    "Bread course in the mill",
    "Spare room in October",
    "Lost: one grey glove",
    "Night hike",
)

OPENINGS: Final = (
    "I looked at it again this morning, and I think that we can do it.",
    "Sorry for the late answer, the line was down all day.",
    "Thank you, that was quick!",
    "I am not sure about the date, but the rest is fine with me.",
    "Could you have a look before Friday?",
    "Good news: they have one left.",
    "This is what we agreed on the phone.",
    "I asked around, and nobody has seen it.",
    "One more thing that I forgot yesterday.",
    "Please do not wait for me, I will come later.",
)
MIDDLES: Final = (
    "The ferry leaves at a quarter past seven, so we should meet at the pier at seven.",
    "It costs less than last year, which surprised all of us.",
    "If it rains we take the tent, if it storms we stay at home.",
    "The second table has a wrong sum; the rest adds up.",
    "I have put the list on the board in the kitchen, please write your name on it.",
    "There are two doors, and the key fits only the green one.",
    "We need eight chairs, four lamps and somebody who can carry a piano.",
    "They open at nine, but the queue is there from eight.",
    "The old version is still on the shelf, in case we want to compare.",
    "He says that the engine is fine and that it was only the battery.",
    "I would rather do it once and properly than three times in a hurry.",
    "Half of the seeds came up, most of them beans.",
    "We can share the cost by four, or by five if Goran comes.",
    "The lighthouse is open to visitors on the first Sunday of the month.",
)
CLOSINGS: Final = ("See you soon,", "Best wishes,", "Until Thursday,", "Thanks,", "Yours,", "Greetings from the coast,")

LIST_SUBJECT: Final = "Tomatoes: which kind for a cold summer?"
LIST_TALK: Final = (
    "Last year I lost nearly all of them to blight. Which kinds do you grow when there is no summer?",
    "Small ones. The smaller the fruit, the sooner it is ripe, and what is ripe in July cannot rot in August.",
    "A roof helps more than the kind. Four posts and a sheet of glass, and the leaves stay dry.",
    "I second the roof. Mine is an old window.",
    "Does anybody save seeds? I could send some of a yellow one that never failed me.",
    "Yes please! I have black beans to swap.",
    "Water them at the foot, never from above, and take off the lowest leaves.",
    "Copper wire through the stem, my neighbour says. I cannot see how that would work.",
    "It does not. I tried it with ten plants each, and both lots died the same week.",
    "Thank you for doing that properly.",
)

ARABIC: Final = (
    "موعد العشاء يوم الجمعة",
    "مرحباً،\n\nهل يناسبكم العشاء يوم الجمعة في الساعة السابعة؟ سنجلس في الحديقة إذا كان الطقس جميلاً.\n"
    "أحضروا معكم الكتاب الذي تحدثنا عنه، فقد وعدتُ أختي بأن تقرأه.\n\nمع أطيب التحيات،\nليلى",
)
CHINESE: Final = (
    "周末去爬山吗？",
    "你好！\n\n这个周末天气很好，我们打算去爬山，早上七点在火车站见面。\n"
    "请带上水和午饭，山上没有商店。如果下雨，我们就改去博物馆。\n\n李雷",
)
JAPANESE: Final = (
    "写真をありがとう",
    "こんにちは。\n\n港の写真をありがとうございました。とてもきれいですね。\n来月そちらに行くので、また会いましょう。\n\nはな",
)
EMOJI: Final = (
    "🎉 It is done! 🎉",
    "The roof is on! 🏠🔨\n\nThank you all 💚 – there will be cake 🍰 at four.\n"
    "Families welcome 👩\u200d👩\u200d👧\u200d👦, dogs too 🐕.\n\nFreya 🌊",
)
HEBREW: Final = (
    "מפגש מקהלה",
    "שלום לכולם,\n\nהחזרה הבאה תתקיים ביום שלישי בשמונה בערב. נא להביא את התווים החדשים.\n\nלהתראות",
)

NEWS: Final = (
    ("The Harbour Post", "Seals are back in the bay", "Eleven of them were counted on the sandbank on Sunday."),
    ("The Harbour Post", "New timetable from May", "The first ferry will leave half an hour earlier."),
    ("Slow Bread", "Rye without hurry", "Three days, three ingredients, and an oven that is hotter than you think."),
    ("Museum of Small Things", "Night of the open drawers", "Four hundred drawers, one night, bring a torch."),
    ("Weather for Sailors", "The week ahead", "A high over the north sea, light winds from the east."),
)

JUNK: Final = (
    ("You have been selected", "Dear winner, your parcel of gold waits at the custom. Answer with your shoe size."),
    ("RE: RE: your account expires TODAY", "Click on the below to keep your account for ever and ever."),
    ("Make $$$ from your own sofa", "Our sofa method is loved by millions. The first sofa is free."),
    ("Cheap watches and hats", "All hats are watches now. Buy two, pay three."),
    ("Your invoice 000000", "Attached find not the invoice that you did not order."),
)
