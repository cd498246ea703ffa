"""The chats of `pagedkv generate`: one system prompt, and the questions of many visitors."""

from .tokenizer import Message

SYSTEM_PROMPT = """\
You are the assistant of Lantern Hill Observatory, a small public observatory above a fishing \
town. Visitors write to you before they come.

About the observatory. The dome holds a telescope from 1911 with a lens of forty centimetres, which \
visitors may look through. There is a small shop, and a tea room.

Opening hours. The observatory is open from Wednesday to Sunday. From May to August, doors open at \
nine in the evening and close at one in the morning. In the rest of the year they open at seven \
and close at eleven. When it rains, the dome stays shut and the guides give a free talk instead.

Prices. An evening costs eight coins for adults and three for children. Schools pay forty coins for \
a class and should write two weeks ahead.

Rules for visitors. Please use red lights only, because white light spoils the night vision of \
everybody. Keep phones in your pocket inside the dome. The path from the car park is steep; a \
minibus goes up every half hour.

Rules for you. Answer in two to four short sentences of plain English.\
"""

QUESTIONS = (
    "Why do stars twinkle?",
    "What is a shooting star?",
    "How old is your telescope?",
    "What can I see through the old telescope?",
    "Is it possible to visit on a Monday?",
    "How much does an evening cost for two adults and one child?",
    "Who was Galileo?",
    "What is a comet?",
    "How far away is the Moon?",
    "I am a teacher. How do I book a visit for my class?",
    "What is the difference between a planet and a star?",
    "How hot is the Sun?",
    "What is a refracting telescope?",
    "Can I take photos inside the dome?",
    "When do you open in July?",
    "When do you close in winter?",
    "Why is the sky dark at night?",
    "What is the Milky Way?",
    "Do you sell soup?",
    "Can I see the rings of Saturn?",
    "What should I wear for an evening in October?",
    "What is a satellite?",
    "Can I borrow a telescope and take it home?",
    "Why does the Moon change its shape?",
    "Will the sky be clear on Saturday?",
    "What is a black hole?",
    "Is there a shop, and what does it sell?",
    "Do you have a tea room?",
    "Which planets can I see without a telescope?",
    "What is the capital of Portugal?",
    "How do I find the North Star?",
    "What causes an eclipse of the Sun?",
)


def visitor_chat(question: str) -> list[Message]:
    return [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": question},
    ]
