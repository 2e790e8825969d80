"""Windows images: the unattended installation's answers and media, and a look at its disk.

Nobody has run an installer of Windows with these here: there is none to be had. What is
proven without one is told in the tests, and in README.
"""

from blocks.windows.answers import WindowsAnswers
from blocks.windows.media import ANSWERS_LABEL, DRIVERS_LABEL, build_answers, build_drivers

__all__ = ["ANSWERS_LABEL", "DRIVERS_LABEL", "WindowsAnswers", "build_answers", "build_drivers"]
