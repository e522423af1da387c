"""A few paragraphs of many kinds, enough to see whether an SAE fits a model."""

SAMPLE_TEXTS = (
    "The town hall was built in 1874, after the old market burned down. Its clock tower can be "
    "seen from the harbour, and on summer evenings people sit on the steps to hear the brass band. "
    "Two years ago the council decided to restore the roof, which had leaked since the war; the "
    "work took longer than planned and cost almost twice as much as the first estimate.",
    "def merge(left, right):\n    out = []\n    while left and right:\n        side = left if "
    "left[0] <= right[0] else right\n        out.append(side.pop(0))\n    return out + left + "
    "right\n\n\nif __name__ == '__main__':\n    print(merge([1, 4, 9], [2, 3, 10]))\n",
    "Question: My back hurts after a day at the desk. What can I do?\nAnswer: Stand up every half "
    "hour and walk a little. Adjust the chair so that your feet rest flat on the floor and the "
    "screen is at eye level. If the pain lasts more than a few weeks, or goes down your leg, see a "
    "doctor.",
    "Water boils at a lower temperature on a mountain because the air pressure is lower there. At "
    "3,000 metres it is about 90 degrees Celsius, so pasta takes longer to cook. A pressure cooker "
    "does the opposite: it keeps the steam in, the pressure rises, and so does the boiling point.",
    "“You said you would be here at six,” she said, without turning round.\n“The train stopped in "
    "the middle of nowhere. They didn't tell us why.” He put the wet umbrella in the corner and "
    "waited. Outside, the rain had nearly ended; a dog was barking somewhere down the street.",
    "Der Zug nach Hamburg fährt heute von Gleis sieben ab und hat etwa zehn Minuten Verspätung. "
    "Reisende in Richtung Bremen steigen bitte in Hannover um. Wir bitten um Entschuldigung für "
    "die Unannehmlichkeiten und wünschen Ihnen trotzdem eine gute Reise.",
    "La recette est simple : faites fondre le beurre, ajoutez la farine et remuez pendant deux "
    "minutes. Versez ensuite le lait froid, petit à petit, sans cesser de fouetter. Salez, poivrez "
    "et laissez épaissir à feu doux.",
    "El equipo ganó tres a dos en el último minuto. Más de cuarenta mil personas llenaban el "
    "estadio, y nadie se marchó antes del final. El entrenador dijo que había sido el partido más "
    "difícil de la temporada.",
    "Let f be continuous on [a, b] and differentiable on (a, b). Then there is a point c in (a, b) "
    "with f'(c) = (f(b) - f(a)) / (b - a). Proof: subtract from f the line through its end points; "
    "the difference vanishes at both, so by Rolle's theorem its derivative vanishes in between.",
    "Subject: Thursday's meeting\n\nHi Priya,\n\nThanks for the slides. Could we move the meeting "
    "to 3:30 pm? I have a call with the supplier until three, and it always runs late. I have "
    "attached the numbers for the second quarter.\n\nBest wishes,\nTom",
    '{"id": 4821, "name": "garden chair", "price": 39.95, "tags": ["outdoor", "wood"], "stock": '
    '{"north": 12, "south": 0}, "updated": "2021-05-03T14:07:22Z", "discontinued": false}',
    "SELECT c.name, SUM(o.total) AS revenue\nFROM customers AS c\nJOIN orders AS o ON o.customer = "
    "c.id\nWHERE o.placed >= '2020-01-01'\nGROUP BY c.name\nHAVING SUM(o.total) > 1000\nORDER BY "
    "revenue DESC;",
    "The defendant shall deliver the goods within thirty (30) days of the date of this agreement. "
    "If delivery is delayed for reasons beyond its control, the period is extended accordingly, "
    "provided that notice is given in writing without undue delay.",
    "Mitochondria carry their own DNA, a small ring that is inherited almost only from the mother. "
    "It mutates faster than the DNA in the nucleus, which makes it useful for tracing how "
    "populations moved and split over the last hundred thousand years.",
    "User: Can you plan a weekend in Lisbon for two, not too expensive?\nAssistant: Sure! On "
    "Saturday, start in Alfama, ride tram 28, and have grilled sardines for lunch. On Sunday, take "
    "the train to Sintra early, before the crowds. Both days together should cost less than 150 "
    "euros.",
    "Shares fell for a third day on Wednesday as investors weighed higher interest rates against "
    "strong earnings. The index closed 1.4 per cent lower at 7,312 points; energy companies were "
    "the only sector to gain, after crude oil rose above 80 dollars a barrel.",
    "I wandered down the lane at dusk,\nThe hedges smelled of rain,\nAnd every window held a lamp "
    "\nI would not see again.",
    "Step 1: Turn off the power. Step 2: Unscrew the cover and note which wire goes where. Step 3: "
    "Loosen the two terminals, remove the old switch, and fit the new one in the same way. Step 4: "
    "Test it before you close the box.",
    "在过去的十年里，这座城市发生了很大的变化。新的地铁线路连接了机场和市中心，许多老工厂变成了"
    "艺术区。不过，住在这里的人说，最好的面馆还是在那条小巷里。",
    "#include <stdio.h>\n\nint main(void) {\n    for (int i = 1; i <= 100; i++) {\n        if (i % "
    '15 == 0) puts("FizzBuzz");\n        else if (i % 3 == 0) puts("Fizz");\n        else if (i % '
    '5 == 0) puts("Buzz");\n        else printf("%d\\n", i);\n    }\n    return 0;\n}\n',
    "This camera is great in daylight but disappointing indoors: pictures are grainy and the focus "
    "hunts. The battery lasts two days. I would buy it again for hiking, at this price, but not "
    "for parties. Three stars out of five.",
    "In the early modern period, salt was taxed in nearly every kingdom of Europe. Because "
    "everyone needed it and few could make it, the tax was easy to collect and hated by all. "
    "Smuggling it became a trade of its own, passed on from parents to children.",
    '<ul class="menu">\n  <li><a href="/home">Home</a></li>\n  <li><a href="/about">About '
    'us</a></li>\n  <li><a href="/contact">Contact</a></li>\n</ul>\n<p>Copyright 2019. All '
    "rights reserved.</p>",
    "A thief broke into the museum at night and took only one painting, a small landscape that "
    "nobody had thought valuable. The guards noticed the empty frame at dawn. Police asked anyone "
    "who had seen a grey van near the river to call the station.",
)
