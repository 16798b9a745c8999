"""Everyday English sentences drawn from a small grammar, with word counts kept even.

Knows nothing of voices or audio. Every word is lower case and spelled out. No two words of the
vocabulary sound alike: `two`, `four`, `eight`, `our`, `there`, `write`, `red`, `blue` are left out for that reason.
"""

import random
import re
from collections import Counter

# A rule's alternatives are separated by "|"; {name} is another rule. START's alternatives are whole sentences.
START = """
{person} bought {some_food} at the {shop} {past}
{person} bought a {adj} {ware} {past}
{person} cooked {meal_food} for {meal}
{person} made {meal_food} with {spices}
{person} ordered {drink} and {snack} for {meal}
we had {snack} and {drink} for {meal}
{person} drank some {drink} {clock}
the {snack} was very {taste}
{person} bought some {taste} {snack} at the {shop}
the {drink} is {heat} and {taste}
please pass the {spice} and the {snack}
can you bring {some_food} from the {shop}
{person} put the {thing} {spot}
the {thing} is {spot}
the {adj} {thing} was {spot}
{person} found a {adj} {thing} {spot}
{person} left the {thing} {spot}
{person} lost a {adj} {thing} in the {place}
i forgot my {worn} at the {place}
{person} forgot the {thing} at the {place}
please open the {opening} of the {room}
can you open the {opening} of the {building}
{person} {closed} the {opening} because it was {heat}
please put the {thing} {spot}
{person} cleaned the {room} {past}
{person} painted the {opening} of the {building} {color}
{person} washed the {color} {worn} {past}
{person} wore a {color} {worn} {past}
{person} fixed the broken {device} {past}
{person} played the {instrument} at the {venue}
the {device} in the {room} is broken
where is the {adj} {thing}
do you have a {adj} {ware}
it was {weather} {past}
it will be {weather} {future}
it was a {weather} {daytime} in the {place}
the {sky} was {light} {past}
{sky_plural} covered the {nature} {past}
the {passing} stopped {clock}
the {noise} was very {loud} {past}
it is {weather} near the {nature}
in {season} the {nature} is {light}
we {went} along the {nature} {past}
{person} {went} to the {place} {past}
{person} will visit the {venue} {future}
{person} waited for the {vehicle} {clock}
the {vehicle} to the {place} leaves {clock}
the {vehicle} arrived {number} minutes late
{person} missed the {vehicle} {clock}
{person} drove the {color} {vehicle} to the {place}
the {vehicle} stopped near the {building}
turn {side} at the {building} and walk to the {place}
the {building} is on the {side} of the {venue}
{person} {went} to the {nature} {how}
we walked for {number} {walk_span} {past}
the {place} is {number} {walk_span} from the {building}
the {adj_animal} {animal} {slept} {lair}
{person} saw {number} {animals} near the {nature}
{number} {animals} {swam} {lair_plural}
my {relative} has a {adj_animal} {animal}
the {animal} followed {person_object} to the {place}
{person} gave the {animal} some {feed}
{person} told {person_object} a {story} story
{person} gave {person_object} a {letter} {past}
{person} called {person_object} {clock}
{person} called {person_object} {past}
{someone} works with {person_object} in the {workplace}
{person} showed {person_object} the {color} {thing}
{someone} wants to learn about the {topic}
{person} liked the {letter} about the {topic}
{someone} works in the {workplace} every {day}
{person} {together} with {person_object} {past}
the {subject} lesson starts {clock}
the {shop} opens {clock}
the {venue} is closed {future}
the {people} were very {mood}
my {relative} is {mood} because it is {weather}
the {job} was {mood} {past}
{someone} feels {mood} after the {event}
the {event} was {story}
the {event} was {long} and {story}
the {subject} lesson was very {long}
the {event} was very {long}
the {event} starts {clock}
{person} invited {number} {visitors} to the {event}
{person} planted {number} {plants} in the garden
the {plants} grow in {season}
{plants} grow near the {nature}
i can see a {adj} {thing} {spot}
"""

RULES = {
    "person": "{someone}|{someone}|we|they|i",
    "someone": "my {relative}|my {relative}|the {job}|the {job}|the {trait} {human}|she|he",
    "person_object": "my {relative}|the {job}|the {people}|a {trait} {human}",
    "relative": "mother|father|sister|brother|uncle|grandmother|friend|neighbor|daughter",
    "job": "teacher|doctor|farmer|driver|nurse|student|waiter|captain|painter",
    "human": "woman|man|girl|boy",
    "trait": "old|young|tall|happy|tired",
    "people": "children|guests|students|family|passengers",
    "visitors": "children|guests|students",
    "some_food": "{number} {countable}|some {snack}|some {spice}|some {drink}",
    "countable": "apples|eggs|potatoes|carrots",
    "meal_food": "{meal_dish}|{countable_dish}|{meal_dish} and {countable_dish}",
    "meal_dish": "chicken|fish|rice|soup|pizza",
    "countable_dish": "potatoes|eggs|carrots|vegetables",
    "snack": "bread|cheese|salad|soup|pizza",
    "spice": "salt|pepper|sugar|butter|honey",
    "spices": "salt and pepper|butter and salt|honey and butter|butter and sugar|pepper and honey|sugar and salt",
    "drink": "coffee|milk|water|orange juice",
    "feed": "bread|milk|water|fish|carrots",
    "taste": "good|fresh",
    "heat": "cold|warm|hot",
    "meal": "breakfast|lunch|dinner",
    "shop": "market|bakery|shop|village shop",
    "ware": "{color} {worn}|{thing}|{device}|{instrument}|{pack}",
    "thing": "book|box|letter|picture|map|basket|bottle|key|{pack}|{worn}",
    "pack": "bag|umbrella",
    "worn": "hat|shirt|coat",
    "device": "phone|computer",
    "instrument": "guitar|piano",
    "spot": "{on} the {furniture}|{on} the {furniture}"
    "|behind the {opening}|in the {room}|near the {opening}|near the wall",
    "on": "on|under|behind|near",
    "furniture": "table|chair|bed|shelf",
    "opening": "door|window|gate",
    "room": "kitchen|bedroom|garden|office",
    "building": "bank|church|school|hotel|library|hospital|bridge|station|house",
    "place": "market|school|station|park|village|city|beach|airport|farm|library|hospital|office",
    "venue": "museum|theater|park|restaurant|library|church|market|hotel",
    "workplace": "hospital|restaurant|school|office|kitchen|garden|library|bank|farm|bakery|museum",
    "nature": "river|lake|forest|mountain|beach|island|road",
    "adj": "small|big|old|new|heavy|empty|broken|beautiful|wooden|clean|cheap|{color}",
    "color": "green|yellow|black|white|brown|gray",
    "weather": "cold|warm|hot|windy|sunny|dark",
    "light": "dark|bright|quiet|beautiful|gray",
    "sky": "sky|street|lake|forest|house|river",
    "sky_plural": "clouds|snow|flowers|trees",
    "passing": "wind|snow|music",
    "loud": "loud|quiet|beautiful",
    "noise": "wind|music|concert|party|game|street",
    "season": "summer|winter|spring|autumn",
    "past": "yesterday|last night|last {weekday}|last month|last year"
    "|in the {daytime}|this morning|today|last {season}",
    "future": "tomorrow|tonight|today|on {weekday}"
    "|next {weekday}|next month|next year|tomorrow {daytime}|next {season}",
    "clock": "at {hour}|at {hour} in the {daytime}|before {meal}|after {meal}|at noon|at midnight",
    "hour": "three|five|six|seven|nine|ten|eleven|twelve",
    "number": "three|five|six|seven|nine|ten|eleven|twelve|twenty|thirty|many",
    "daytime": "morning|afternoon|evening",
    "weekday": "monday|tuesday|wednesday|thursday|friday|saturday|sunday",
    "day": "day|morning|evening|{weekday}",
    "walk_span": "minutes|miles",
    "went": "walked|ran|drove",
    "closed": "closed|opened",
    "vehicle": "train|bus|car|boat",
    "side": "left|right",
    "how": "on a train|on a boat|with {person_object}|with {person_object}",
    "animal": "dog|cat|horse|bird|rabbit",
    "animals": "dogs|horses|birds|rabbits",
    "adj_animal": "small|big|old|young|black|white|brown|hungry",
    "slept": "slept|jumped|ran|waited",
    "lair": "under the {furniture}|behind the {building}|near the {nature}|in the {room}|near the wall",
    "swam": "played|slept|waited|ran",
    "lair_plural": "near the {nature}|behind the {building}|in the {room}",
    "story": "funny|beautiful|interesting",
    "subject": "history|music|guitar|piano",
    "topic": "weather|history|music|city|mountain|island|garden",
    "letter": "letter|message|book|picture",
    "mood": "happy|tired|hungry|busy|quiet",
    "event": "party|concert|lesson|journey|game",
    "together": "played|waited",
    "long": "long|short",
    "plants": "flowers|trees|vegetables|carrots|potatoes",
}


def draw(rng: random.Random) -> str:
    """One random sentence; "a" becomes "an" before a vowel."""
    sentence = rng.choice(START.strip().splitlines())
    while match := re.search(r"\{(\w+)\}", sentence):
        sentence = sentence[: match.start()] + rng.choice(RULES[match[1]].split("|")) + sentence[match.end() :]
    return re.sub(r"\ba (?=[aeiou])", "an ", sentence)


def acceptable(words: list[str]) -> bool:
    """4 to 9 words, at most one of them said twice."""
    return 4 <= len(words) <= 9 and len(set(words)) >= len(words) - 1


def balanced(n_sentences: int, rng: random.Random, seen: set[str], n_candidates: int = 400) -> list[str]:
    """Draw `n_sentences` new sentences of 4 to 9 words, each time the candidate whose words were the rarest so far.

    Args:
        n_sentences: how many.
        rng: the only source of randomness.
        seen: sentences that must not be drawn; those drawn are added to it.
        n_candidates: draws per sentence; more make the word counts more even.
    """
    counts: Counter[str] = Counter()
    sentences = []
    while len(sentences) < n_sentences:
        drawn = {draw(rng): None for _ in range(n_candidates)}
        fresh = [s for s in drawn if s not in seen and acceptable(s.split())]
        best = max(fresh, key=lambda s: sum(1 / (1 + counts[w]) ** 2 for w in s.split()) / len(s.split()))
        seen.add(best)
        sentences.append(best)
        counts.update(best.split())
    return sentences
