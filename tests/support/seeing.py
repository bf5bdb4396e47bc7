"""A task whose responses have kinds of segments that no task of the suite writes: Adding, said with what is seen."""

import re
from collections.abc import Mapping

from support.adding import Adding, Numbers
from vlmreason.segments import Response, Segment, in_steps


class Seeing(Adding):
    """A caption, two perceptions with labels, a thought before them and one behind, the answer."""

    name = "seeing"

    def response(self, state: Numbers, view: str) -> Response:
        convert = super().response(state, view).segments[:1] if view == "image_via_text" else ()
        first, *rest = state.values
        return Response(
            (
                *convert,
                in_steps("thought", ["I look. ", "I look again.\n"]),
                Segment("caption", f"Caption: {len(state.values)} numbers.\n"),
                Segment("perception", f"See [top]: {first}\n", "top"),
                Segment("perception", f"See [rest]: {' '.join(map(str, rest))}\n", "rest"),
                in_steps("thought", self.thought(state), opening="Think: "),
                Segment("answer", self.answer(state)),
            )
        )

    def markers(self) -> Mapping[str, re.Pattern[str]]:
        return {
            "perception": re.compile(r"^See \[(?P<label>\w{1,20})\]: ", re.MULTILINE),
            "caption": re.compile("Caption: "),
            "thought": re.compile("^Think: ", re.MULTILINE),
        }
