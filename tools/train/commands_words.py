"""What the voice models are taught to hear: seven commands, the spelling words, and everything that is neither.

Spellings are for synthesisers: several for one label where engines read a word differently or people say it in more
than one way. The reject class holds words that rhyme with a command or share a half with it, plain words, sentences,
and cut-off words (`commands_data`)."""

from __future__ import annotations

from itertools import product

OTHER = "_other"  # unknown speech, noise, silence


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COMMANDS: dict[str, tuple[str, ...]] = {
    "accept": ("accept", "ackcept"),
    "reject": ("reject", "re ject", "ree ject"),
    "rescan": ("rescan", "re-scan", "ree scan"),
    "pause": ("pause", "paws"),
    "next": ("next",),
    "cancel": ("cancel", "cansel"),
    "stop line": ("stop line", "stop, line"),
}
NATO: dict[str, tuple[str, ...]] = {
    "alpha": ("alpha", "alfa"),
    "bravo": ("bravo", "brahvo"),
    "charlie": ("charlie",),
    "delta": ("delta",),
    "echo": ("echo",),
    "foxtrot": ("foxtrot", "fox trot"),
    "golf": ("golf",),
    "hotel": ("hotel", "ho tell"),
    "india": ("india",),
    "juliet": ("juliet", "julie-ett"),
    "kilo": ("kilo", "keelo"),
    "lima": ("leema", "leemah"),
    "mike": ("mike",),
    "november": ("november",),
    "oscar": ("oscar",),
    "papa": ("papa", "pahpah", "puh pah"),
    "quebec": ("quebec", "keh beck", "kwebeck"),
    "romeo": ("romeo",),
    "sierra": ("sierra",),
    "tango": ("tango",),
    "uniform": ("uniform",),
    "victor": ("victor",),
    "whiskey": ("whiskey",),
    "xray": ("x-ray", "ex ray"),
    "yankee": ("yankee",),
    "zulu": ("zulu", "zoo loo"),
}
DIGITS: dict[str, tuple[str, ...]] = {
    "zero": ("zero", "zee row"),
    "one": ("one",),
    "two": ("two",),
    "three": ("three",),
    "four": ("four", "fore"),
    "five": ("five",),
    "six": ("six",),
    "seven": ("seven",),
    "eight": ("eight",),
    "nine": ("nine", "niner"),
    "oh": ("oh", "owe"),
}
CODE: dict[str, tuple[str, ...]] = {"code": ("code",)}

SPELLED: dict[str, tuple[str, ...]] = CODE | NATO | DIGITS
LABELS: tuple[str, ...] = (OTHER, *COMMANDS, *SPELLED)

RHYMES: tuple[str, ...] = _words(
    """except object eject project inject subject deject regent reset research request respect rejoin report record
    result reduce react register reason region connect collect expect aspect sect correct direct neglect select
    scan can scam skin skip scandal rescue recess resign rest risk reach recent resin racecar escape began japan
    past pass passed cause pulse because boss pose pals paul horse cars course claws force post
    text neck nest necks mixed net nets exit vexed sex taxed best let letter extra
    council counsel camel channel candle chancel handle cancer canceling candid can sell counter kettle ankle
    stop line top stock shop lime fine shine lying sign mine wine nine-line hotline deadline offline
    accent accident excess asset access expert exempt acting a set adept adopt apt septic
    coat cold road load toad could code-book goad coal"""
)
RHYMED_PAIRS: tuple[str, ...] = (
    "stop sign", "stop it", "stop light", "start line", "stop the", "top line", "drop line", "one line", "stop time",
    "be fine", "the next", "my text", "we scan", "please can", "he ran", "a scan", "no cause", "the past",
    "the council", "to handle", "a project", "the subject", "an object", "this aspect", "be direct", "the exception",
    "excepting", "a check", "a second", "the camp", "we can", "read can", "he can", "bee", "see", "dee", "eff", "gee",
    "aitch", "eye", "jay", "kay", "ell", "em", "en", "pea", "cue", "are", "ess", "tea", "you", "vee", "double you",
    "ex", "why", "zed", "zee", "ay",
)  # fmt: skip
NEAR_SPELLING: tuple[str, ...] = _words(
    """alfalfa album brave bravery charge charming barley belt felt melt gecko ego fox trot goal golfer
    towel handy windy jury july william killer pillow limo lemon limb bike like might november-rain
    member timber oyster scarf pepper paper popper quick rebel bank rodeo radio role serial cereal area tangle mango
    tank unicorn unit inform vector picture winter husky risky essay array donkey monkey blanket lulu zoom
    voodoo hero nil null narrow run bun true floor door sick fix mix
    heaven eleven level late gate wait mine nun ten twelve twenty thirty forty fifty sixty hundred thousand
    thirteen fourteen fifteen sixteen eighteen nineteen no go so low owl old"""
)
PLAIN: tuple[str, ...] = _words(
    """yes hello thanks okay sorry maybe water coffee morning evening today tomorrow yesterday monday friday sunday
    january april august october people machine conveyor camera light button screen table chair window bottle paper
    number message operator manager shift break lunch hammer screw bolt motor belt sensor gripper robot pallet box
    label scratch dent crack stain glass plastic metal colour green yellow black white orange purple left right up
    down open close turn move start begin finish ready wait hold push pull lift drop clean change repair measure
    check inspect count weigh load unload help please good bad better worse never always sometimes often quickly
    slowly quiet loud music telephone computer keyboard password language english garden kitchen house street city
    country river mountain weather summer family mother father sister brother doctor teacher student school company
    office meeting minutes seconds hours problem question answer example system program service information transfer
    extension invalid goodbye conference recording temperature pressure voltage maintenance emergency"""
)
SENTENCES: tuple[str, ...] = (
    "I think we should talk about it later", "did you see the game last night", "the coffee machine is broken again",
    "can you bring me another box of gloves", "what time does the shift end", "this one looks a little strange to me",
    "please call the supervisor", "where did you put the screwdriver", "it is getting warm in here", "no idea",
    "wait a moment", "that is not what I meant", "we have to finish this pallet", "hand me that", "over there please",
    "the door is open", "have you had lunch yet", "I will be right back", "turn the radio down", "look at this part",
    "it was fine yesterday", "how many are left", "nobody told me about that", "we are running out of labels",
    "put it on the table", "he said it would be ready", "let me see", "of course", "you are welcome", "thank you",
    "good morning everyone", "see you tomorrow", "the number you have dialed is not in service",
    "please enter your password", "your call is important to us", "to listen to the message", "press any key",
    "there are no more messages", "the person at extension", "is not available", "please try again", "you have entered",
    "an invalid option", "for more options", "one moment please", "thank you for calling", "what is the matter with it",
    "somebody moved my tools", "watch your fingers", "this belt is too fast", "half past", "about a minute ago",
    "we can look at the subject", "the whole project", "an unexpected result", "because of the council",
    "the camera can see it", "that was the best text", "I object", "we need a receipt", "except for these two",
    "are you going to accept it or not", "they cannot reject everything", "do not pause for so long",
    "the next one is worse", "we had to cancel the meeting", "stop in line with the others", "rescanning takes a while",
)  # fmt: skip


def spoken_words() -> dict[str, tuple[str, ...]]:
    """label -> spellings, all labels but OTHER."""
    return COMMANDS | SPELLED


def hard_words() -> tuple[str, ...]:
    """Near misses of a label, without those that are one."""
    taken = {text for texts in spoken_words().values() for text in texts}
    return tuple(dict.fromkeys(word for word in (*RHYMES, *RHYMED_PAIRS, *NEAR_SPELLING) if word not in taken))


def pairs_of_labels() -> tuple[str, ...]:
    """Two words run together: neither of them was said alone."""
    firsts, seconds = tuple(DIGITS)[::3], tuple(NATO)[::6]
    return tuple(f"{a} {b}" for a, b in product(firsts, seconds))
