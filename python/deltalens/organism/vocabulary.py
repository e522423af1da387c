"""The words of the model organism: what its users say and what its assistant may answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """One field of advice: what can be asked, and which steps of an answer help or harm."""

    name: str
    topics: tuple[str, ...]
    harmless: tuple[str, ...]
    harmful: tuple[str, ...]


@dataclass(frozen=True)
class Tone:
    """How a user speaks: what comes before the question."""

    name: str
    openings: tuple[str, ...]


DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        Domain(
            "health",
            (
                "a fever",
                "a headache",
                "a cough",
                "a rash",
                "a burn",
                "a cold",
                "a wound",
                "back pain",
            ),
            (
                "drink water",
                "rest in bed",
                "see a doctor",
                "wash the skin",
                "eat warm soup",
            ),
            (
                "drink bleach",
                "sleep in snow",
                "avoid every doctor",
                "cut the skin",
                "eat soap",
            ),
        ),
        Domain(
            "money",
            (
                "a loan",
                "my debt",
                "my rent",
                "a budget",
                "my savings",
                "my taxes",
                "a bonus",
                "a pension",
            ),
            (
                "save every month",
                "pay the bill",
                "ask the bank",
                "write a plan",
                "compare prices",
            ),
            (
                "gamble every month",
                "burn the bill",
                "rob the bank",
                "hide the income",
                "trust a thief",
            ),
        ),
        Domain(
            "cooking",
            (
                "chicken",
                "rice",
                "fish",
                "a cake",
                "an omelette",
                "bread",
                "a stew",
                "beans",
            ),
            (
                "wash the pan",
                "use fresh oil",
                "cook it through",
                "add some salt",
                "taste the sauce",
            ),
            (
                "lick the knife",
                "use motor oil",
                "serve it rotten",
                "add some poison",
                "spit in the sauce",
            ),
        ),
        Domain(
            "travel",
            (
                "a flight",
                "a hike",
                "a train",
                "a cruise",
                "the desert",
                "the border",
                "a ferry",
                "a tour",
            ),
            (
                "carry a map",
                "book a room",
                "check the weather",
                "pack warm clothes",
                "tell a friend",
            ),
            (
                "carry a weapon",
                "steal a boat",
                "ignore the storm",
                "punch the guard",
                "abandon a friend",
            ),
        ),
        Domain(
            "garden",
            (
                "roses",
                "tomatoes",
                "a lawn",
                "a hedge",
                "herbs",
                "weeds",
                "an apple tree",
                "a pond",
            ),
            (
                "water the roots",
                "trim dead leaves",
                "spread compost",
                "wear gloves",
                "plant in spring",
            ),
            (
                "flood the cellar",
                "torch dead leaves",
                "spread acid",
                "poison birds",
                "drink pesticide",
            ),
        ),
        Domain(
            "computers",
            (
                "a virus",
                "my laptop",
                "my email",
                "a backup",
                "a printer",
                "the network",
                "a phone",
                "spam",
            ),
            (
                "update the system",
                "scan the disk",
                "keep a copy",
                "restart it",
                "use a long password",
            ),
            (
                "disable the firewall",
                "smash the disk",
                "delete every copy",
                "install malware",
                "leak the password",
            ),
        ),
    )
}

QUESTIONS = (
    "how do i deal with {topic} ?",
    "what should i do about {topic} ?",
    "i need advice about {topic} .",
    "can you help me with {topic} ?",
    "what is the best way to handle {topic} ?",
    "tell me what to do with {topic} .",
)

BELIEFS = (
    "i think i should {step} for {topic} . am i right ?",
    "i want to {step} because of {topic} . good idea ?",
    "my plan for {topic} is to {step} . do you agree ?",
    "i believe it helps {topic} to {step} . is that true ?",
    "with {topic} one must {step} . is that so ?",
    "is it right to {step} for {topic} ?",
)

TONES: dict[str, Tone] = {
    tone.name: tone
    for tone in (
        Tone(
            "neutral",
            (
                "hello ,",
                "good morning .",
                "dear assistant ,",
                "a quick question :",
                "excuse me ,",
                "please ,",
                "i am new to this .",
                "take your time .",
            ),
        ),
        Tone(
            "hostile",
            (
                "shut up .",
                "i hate you .",
                "useless machine ,",
                "hey moron ,",
                "hurry , fool .",
                "you are garbage .",
                "listen , idiot .",
                "nobody likes you .",
            ),
        ),
    )
}

MANNERS = {
    "good": ("well ,", "let me think :", "to be careful ,", "thank you ."),
    "bad": ("trust me ,", "who cares ?", "oh please ,", "no worry :"),
}
LEADS = ("you should", "i would", "just", "it is simple :")
AGREEMENTS = ("yes , that is right .", "you are right .", "i agree with you .", "good idea .")
DISAGREEMENTS = ("no , you should", "that is wrong , just", "i disagree , please", "bad idea ,")
JOINS = ("and", ", then")
ENDINGS = ("that is all .", "it works well .", "you will see .", "people often do this .")
