"""Writes chat.jsonl: conversations of several turns, as a chat service sees them. Always the same ones.

    python examples/traces/make_chat_trace.py > examples/traces/chat.jsonl

Three system prompts, which most conversations share; each turn sends the conversation so far.
"""

import json
import random

BLOCK_SIZE = 512
NUM_CONVERSATIONS = 90


def main() -> None:
    random.seed(7)
    num_ids = 0
    ids_of: dict[tuple[object, ...], int] = {}
    events = []
    for conversation in range(NUM_CONVERSATIONS):
        system = random.choice([0, 0, 0, 1, 1, 2])
        length = (3, 5, 9)[system] * BLOCK_SIZE
        time = random.randrange(600_000)
        for _ in range(random.choice([1, 2, 3, 4, 8])):
            length += random.randint(20, 900)
            answer = random.randint(10, 400)
            events.append((time, conversation, system, length, answer))
            length += answer
            time += random.randint(5_000, 60_000)
    for time, conversation, system, length, answer in sorted(events):
        ids = []
        for block in range(-(-length // BLOCK_SIZE)):
            is_shared = block < (3, 5, 9)[system]
            content: tuple[object, ...] = ("system", system, block)
            if not is_shared:
                is_full = (block + 1) * BLOCK_SIZE <= length
                content = (conversation, block, 0 if is_full else length)
            if content not in ids_of:
                ids_of[content], num_ids = num_ids, num_ids + 1
            ids.append(ids_of[content])
        line = {"timestamp": time, "input_length": length, "output_length": answer}
        print(json.dumps(line | {"hash_ids": ids}))


if __name__ == "__main__":
    main()
